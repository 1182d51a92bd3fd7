"""The launcher: starts, watches and drains the processes of the service on one machine."""
