"""Ctrl-C while a command is still being imported."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def plain_interrupts() -> Iterator[None]:
    """While it lasts, Ctrl-C ends the process at once and without a traceback: for imports, which
    have nothing to undo. A signal that is ignored stays so."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
