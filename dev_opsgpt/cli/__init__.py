"""The ``opsgpt`` command."""

from dev_opsgpt.cli.app import main

__all__ = ["main"]
