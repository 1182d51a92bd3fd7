"""How long a connection may hold its server up: times for a client that sends, that reads, that
says nothing, and for what it has under way when the server stops."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dev_opsgpt.transport.exchange import Exchange

KEEP_ALIVE = 75
# Seconds that a client may take to send a request, and to take any of an answer that waits for it.
RECEIVE_TIMEOUT = 120.0
WRITE_TIMEOUT = 120.0
# Seconds that a client which has nothing answered has for one request more when the server stops:
# it may have sent it already.
LAST_CALL = 0.5


class Patient(HttpToolsProtocol):
    """uvicorn's connection with these times: since when a request is being received, since when the
    client takes nothing, since when nothing happens. Whoever looks at ``overdue`` ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.receiving_since: float | None = None
        self.stalled_since: float | None = None
        self.idle_since: float | None = None
        self._last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The socket is open. A client that never says anything is cut off too."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        super().connection_lost(exc)
        self.receiving_since = self.stalled_since = self.idle_since = None

    def pause_writing(self) -> None:
        """The client takes less than it is given."""
        super().pause_writing()
        self.stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client takes more again."""
        super().resume_writing()
        self.stalled_since = None

    def overdue(self, now: float) -> bool:
        """Whether the client has held the connection up for too long."""
        receiving, stalled, idle = self.receiving_since, self.stalled_since, self.idle_since
        return (
            (receiving is not None and now - receiving > RECEIVE_TIMEOUT)
            or (stalled is not None and now - stalled > WRITE_TIMEOUT)
            or (idle is not None and now - idle > KEEP_ALIVE)
        )

    def shutdown(self) -> None:
        """The server stops: what is being answered is answered, or else one request more that
        comes within a moment, then the connection closed."""
        self._last = True
        current = self.cycle
        if isinstance(current, Exchange):
            # A head that has been sent has promised that there may be one more.
            current.keep_alive = current.keep_alive and current.started
        elif current is not None and not current.response_complete:
            current.keep_alive = False
        self._last_call()

    def _last_call(self, rested: bool = False) -> None:
        """Closes a connection on which nothing has happened since the call before this one."""
        current = self.cycle
        answering = current is not None and not current.response_complete
        rests = not answering and self.receiving_since is None
        if self.transport.is_closing():
            return
        if rested and rests:
            self.transport.close()
        else:
            self.loop.call_later(LAST_CALL, self._last_call, rests)
