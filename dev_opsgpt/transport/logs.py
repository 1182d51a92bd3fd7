"""A process's log: set up in one place, as text or as JSON, without secrets, off the event loop."""

import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import msgspec

from dev_opsgpt.transport.log_writer import LogWriter
from dev_opsgpt.transport.masking import mask
from dev_opsgpt.transport.request_id import current

Format = Literal["text", "json"]
Exc = tuple[type[BaseException], BaseException, TracebackType | None]

log = logging.getLogger(__name__)

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(request)s"
# Clients that log every URL they call, and with it a provider's keys.
TALKATIVE = ("httpx", "httpcore")


def install(
    level: str | int = logging.INFO, form: Format = "text", stream: TextIO | None = None
) -> LogWriter:
    """Sends everything that this process logs to ``stream`` (left out: standard error), masked.

    What ends a thread, or the process, is logged too, and so are warnings. Gives the writer, for
    the access log; ``logging.shutdown`` writes out and closes it.
    """
    writer = LogWriter(stream or sys.stderr)
    handler = WriterHandler(writer)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _ended
    threading.excepthook = _thread_ended
    return writer


class WriterHandler(logging.Handler):
    """Hands records to a writer: made into text here, where the request is known, written there."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record."""
        try:
            self._writer.write(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Writes out what waits."""
        self._writer.close()
        super().close()


class TextFormatter(logging.Formatter):
    """Plain lines; the request's id stands at the end, where there is one."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and what traceback there is, masked."""
        request_id = current.get()
        record.request = f" [{request_id}]" if request_id else ""
        return mask(super().format(record))


class JsonFormatter(logging.Formatter):
    """An object a line: ``time``, ``level``, ``logger``, ``message``, and where there is one
    ``request_id`` and ``exception``, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, masked. Masked before it is encoded: what is cut out of JSON breaks it."""
        found = envelope(record.created, record.levelname, record.name)
        found["message"] = _clean(record.getMessage())
        if request_id := current.get():
            found["request_id"] = _clean(request_id)
        if record.exc_info:
            found["exception"] = _clean(self.formatException(record.exc_info))
        if record.stack_info:
            found["stack"] = _clean(self.formatStack(record.stack_info))
        return msgspec.json.encode(found).decode()


def envelope(at: float, level: str, name: str) -> dict[str, Any]:
    """What every JSON line begins with. ``at`` is Unix time in seconds; ``time`` is UTC."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return {"time": time.replace("+00:00", "Z"), "level": level, "logger": name}


def _clean(text: str) -> str:
    # Names of files may have bytes that are no text; JSON takes none.
    return mask(text).encode(errors="backslashreplace").decode()


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("the process ends", exc_info=(kind, error, trace))


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else "?"
        log.error(
            "the thread %s ended",
            name,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
