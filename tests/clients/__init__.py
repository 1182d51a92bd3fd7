"""Clients that people use, against the service as ``start.py`` runs it."""
