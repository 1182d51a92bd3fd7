"""How a connection ends a request that cannot be read to its end: with an answer that its client
gets to read."""

from typing import Any, cast

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.exchange import Exchange
from dev_opsgpt.transport.patience import Patient
from dev_opsgpt.transport.request_id import new_id

# Seconds that a client which is refused while it sends is listened to, so that it can read why.
LINGER = 2.0


class _Deaf:
    """Stands in for the parser of a connection whose client is no longer listened to."""

    def feed_data(self, data: bytes) -> None:
        """Does nothing."""


DEAF: Any = _Deaf()
_NOBODY: Any = None


class Refusing(Patient):
    """A connection that can refuse. ``_running`` is the exchange that is being answered;
    ``_in_head`` tells whether the next byte belongs to a head, of which ``_head`` is what has
    arrived, and all that came with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: Exchange | None = None
        self._in_head = True
        self._head = b""

    def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        """Answers a request that has not arrived yet and never will be read. A while of what still
        comes is dropped first: to close on a client that is sending would destroy the answer
        before it is read."""
        exchange.keep_alive = False
        exchange.error(error)
        self.idle_since = None
        self.loop.call_later(LINGER, self.transport.close)

    def _malformed(self, error: ApiError) -> None:
        """Refuses a request that is no HTTP. Where the next one would begin nobody knows, so there
        is none; those that came before it are answered first."""
        self.parser = DEAF
        self.receiving_since = None
        current: Any = self.cycle
        waits = current is not None and not current.response_complete
        if not self._in_head:
            # It is the current one's body that is wrong, not the head of the next.
            if not waits:
                self._close()
                return
            if not self._give_up(current, error):
                self.transport.close()
                return
            waits = bool(self.pipeline) and self.pipeline[0][0] is current
            if waits:
                self.pipeline.popleft()
        self._in_head, self._head = False, b""
        # It gets an exchange of its own, to be answered when its turn comes.
        refusal = Exchange(cast(Any, self), _NOBODY, "", {}, "", False, False)
        refusal.extra = b"x-request-id: %b\r\n" % new_id().encode()
        refusal.refusal = error
        refusal.whole = True
        if waits:
            self.pipeline.appendleft((cast(Any, refusal), self.app))
        else:
            self._running = refusal
            refusal.run(self.loop)

    def _give_up(self, current: Any, error: ApiError) -> bool:
        """Ends a request whose body is broken. False where its answer has begun: all that is left
        is to cut that."""
        if isinstance(current, Exchange):
            if current.refusal is None:
                current.refusal = error
                current.handler.refused(current, error)
            return not current.started
        current.disconnected = True
        current.message_event.set()
        return not current.response_started

    def _close(self) -> None:
        """Ends the connection. A client that is no longer listened to gets a while to read why: to
        close on one that is sending would destroy the answer before it is read."""
        if self.parser is not DEAF or self.transport.is_closing():
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)
