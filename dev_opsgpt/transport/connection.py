"""One client's connection: uvicorn's, and beside it the requests that are answered without ASGI."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from dev_opsgpt.protocol.errors import ApiError, InvalidRequest
from dev_opsgpt.transport import head as heads
from dev_opsgpt.transport.exchange import Exchange, Handler
from dev_opsgpt.transport.head import MAX_HEAD
from dev_opsgpt.transport.held_head import HeldHead
from dev_opsgpt.transport.refusing import DEAF, Refusing

Hot = Mapping[bytes, Handler]
"""The paths whose POSTs are answered without ASGI."""

ON_DISCONNECT = "opsgpt.on_disconnect"
# Bytes that a chunked body may bring for each byte of it. What it brings beyond, in names of chunks
# and trailers, counts as a head does.
WRAPPED = 16
# Bytes that a client may send ahead, while requests wait for the answer to one before them. To read
# on is to notice that it hangs up.
AHEAD = 262_144


class Connection(Refusing):
    """One client's connection. A POST to one of the ``hot`` paths is answered here, by its handler
    and an ``Exchange``; everything else is uvicorn's, and goes to the ASGI application.

    Of headers that come twice the last one counts.
    """

    def __init__(self, hot: Hot, *args: Any, **kwargs: Any) -> None:
        self._hot = hot
        self._fields: dict[bytes, bytes] = {}
        self._url: list[bytes] = []
        self._body: list[bytes] = []
        # The parser takes these from here when it is made. As functions of the interpreter's own
        # they cost no frame of ours for every header.
        self.on_message_begin = None  # type: ignore[assignment, method-assign]
        self.on_url = self._url.append  # type: ignore[assignment, method-assign]
        self.on_header = self._fields.__setitem__  # type: ignore[assignment, method-assign]
        self.on_body = self._body.append  # type: ignore[assignment, method-assign]
        super().__init__(*args, **kwargs)
        # uvicorn would have it read on after a "connection: close".
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._exchange: Exchange | None = None
        self._started: RequestResponseCycle | None = None
        self._ahead = 0
        # The last host that was looked at: no value of a header at first.
        self._host: bytes | None = b"\0"
        self._detour = b""
        self._staying = False
        self._wrapping = 0
        self._dates: list[tuple[bytes, bytes]] | None = None
        self._date = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: whatever is done for the client is let go at once."""
        super().connection_lost(exc)
        if self._running is not None:
            self._running.hang_up()
        for waiting, _ in reversed(self.pipeline):
            if isinstance(waiting, Exchange):
                waiting.hang_up()
        # Not the latest, which may wait: the one that is being answered.
        cycle = self._started
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            scope = cast(MutableMapping[str, Any], cycle.scope)
            hook: Callable[[], None] | None = scope.get(ON_DISCONNECT)
            if hook is not None:
                hook()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self.idle_since = None
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self.receiving_since is None:
            self.receiving_since = self.loop.time()
        size = 0
        if self._in_head:
            self._head = self._head + data if self._head else data
        else:
            size = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            known = error.__context__
            wrong = known if isinstance(known, ApiError) else heads.refused(heads.NOT_HTTP)
            self._malformed(wrong)
        else:
            if self.receiving_since is not None:
                self._partly_received(size)
            if self.pipeline:
                self._ahead += len(data)
                self._read_ahead()

    def on_headers_complete(self) -> None:
        """The head of a request is there. Raises ``InvalidRequest``."""
        url = b"".join(self._url)
        fields = {name.lower(): value for name, value in self._fields.items()}
        self._url.clear()
        self._fields.clear()
        head, self._head = self._head, b""
        if len(head) > MAX_HEAD and heads.size(url, fields) > MAX_HEAD:
            raise heads.too_large()
        version = self.parser.get_http_version()
        upgrade = self.parser.should_upgrade()
        if (
            upgrade
            or version != "1.1"
            or b"transfer-encoding" in fields
            # Clients name the same one all the time; it is for nothing but to be right.
            or fields.get(b"host") != self._host
        ):
            heads.check(version, fields, head)
            self._host = fields.get(b"host")
            if upgrade:
                self._decline(url, version, fields)
                return
        handler = self._hot.get(url) or self._hot.get(url.partition(b"?")[0])
        if handler is None and not url.startswith(b"/"):
            url = heads.origin_form(url)
            handler = self._hot.get(url.partition(b"?")[0])
        if handler is None and b"%" in url:
            path, mark, query = url.partition(b"?")
            handler = self._hot.get(unquote_to_bytes(path))
            url = unquote_to_bytes(path) + mark + query if handler is not None else url
        if handler is not None and self.parser.get_method() == b"POST":
            self._in_head = False
            self._begin(handler, url, fields, version)
            return
        before = self.cycle
        if before is not None and not before.keep_alive and before.response_complete:
            raise _over()
        if b"#" in url:
            raise heads.refused("A request's target has no fragment.")
        self._exchange = None
        super().on_message_begin()
        self.url = url
        self.headers.extend(fields.items())
        self.expect_100_continue = _waits_for_leave(fields, version)
        super().on_headers_complete()
        if self._last:
            self.cycle.keep_alive = False
        if self.pipeline:
            # uvicorn would read no further.
            self._read_ahead()
        self._in_head = False

    def on_message_complete(self) -> None:
        """A request is whole."""
        self.receiving_since = None
        self._in_head = True
        self._wrapping = 0
        # What a chunked body brings after it is none of the next request's.
        self._fields.clear()
        exchange = self._exchange
        if exchange is None:
            if not self._detour:
                self._hand_on()
                super().on_message_complete()
            return
        exchange.receive(self._body)
        exchange.whole = True
        if self._running is exchange:
            exchange.run(self.loop)
        elif exchange.response_complete:
            # It was refused before it had arrived; now its sender has read why.
            self.transport.close()

    def exchange_complete(self, exchange: Exchange) -> None:
        """An exchange has been answered: the next one's turn, or the connection rests."""
        self._running = None
        if not exchange.keep_alive and exchange.whole:
            self._close()
        elif self.pipeline:
            self.on_response_complete()
        else:
            self.idle_since = self.loop.time()

    def on_response_complete(self) -> None:
        """A request has been answered: the next one's turn."""
        super().on_response_complete()
        if self._ahead and not self.transport.is_closing():
            self._ahead = self._ahead if self.pipeline else 0
            self._read_ahead()

    def _read_ahead(self) -> None:
        """Reads on while requests wait, as long as that is not too much."""
        if self._ahead > AHEAD:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()

    def date(self) -> bytes:
        """The Date header's line, made anew once a second."""
        if self._dates is not self.server_state.default_headers:
            self._dates = self.server_state.default_headers
            self._date = b"".join(b"%b: %b\r\n" % pair for pair in self._dates)
        return self._date

    def pause_writing(self) -> None:
        """The client takes less than it is given."""
        super().pause_writing()
        if self._running is not None:
            self._running.pause()

    def resume_writing(self) -> None:
        """The client takes more again."""
        super().resume_writing()
        if self._running is not None:
            self._running.resume()

    def _begin(
        self, handler: Handler, url: bytes, fields: dict[bytes, bytes], version: str
    ) -> None:
        version_1_0 = version == "1.0"
        exchange = Exchange(
            self,
            handler,
            url.partition(b"?")[0].decode("latin-1"),
            fields,
            self.client[0] if self.client is not None else "",
            not (version_1_0 or self._last) and self.parser.should_keep_alive(),
            not version_1_0,
        )
        before = self.cycle
        if before is not None and not before.keep_alive and before.response_complete:
            raise _over()
        self._exchange = exchange
        self.cycle = exchange  # type: ignore[assignment]
        if before is None or before.response_complete:
            self._running = exchange
        else:
            self.pipeline.appendleft((self.cycle, self.app))
        try:
            handler.begin(exchange)
        except ApiError as error:
            exchange.refusal = error
        else:
            declared = fields.get(b"content-length", b"")
            # A length of seven digits and more may be too large; most are not even looked at.
            if len(declared) > 6 and int(declared) > handler.max_body:
                exchange.too_large()
                return
            exchange.waits = b"expect" in fields and _waits_for_leave(fields, version)
            if self._running is exchange:
                self._give_leave(exchange)

    def _give_leave(self, exchange: Exchange) -> None:
        """Tells a client to send the body where it waits for that."""
        if exchange.waits:
            exchange.waits = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _partly_received(self, size: int) -> None:
        """More of the request is to come: what there is of it is looked after. ``size`` is that of
        what just came."""
        if self.parser is DEAF:
            return
        if self._in_head:
            if len(self._head) > MAX_HEAD:
                self._malformed(heads.too_large())
            return
        # What chunks are told by, and what follows the last one, counts for no body.
        body = sum(map(len, self._body))
        self._wrapping = max(0, self._wrapping + size - body * (1 + WRAPPED))
        if self._wrapping > MAX_HEAD:
            self._malformed(heads.too_large())
            return
        exchange = self._exchange
        if exchange is None:
            self._hand_on()
            return
        exchange.receive(self._body)
        if exchange.refusal is not None and self._running is exchange:
            self._refuse(exchange, exchange.refusal)

    def _hand_on(self) -> None:
        """Gives uvicorn what has arrived of a body that is for an ASGI application."""
        for part in self._body:
            super().on_body(part)
        self._body.clear()

    def _decline(self, url: bytes, version: str, fields: dict[bytes, bytes]) -> None:
        """The client would rather speak something else. It is answered as if it had not said so,
        which needs a parser that has not heard it: this one takes what follows for the other
        protocol, and a body for a request. Raises ``InvalidRequest`` for a tunnel."""
        method = self.parser.get_method()
        if method == b"CONNECT" or self._staying:
            raise heads.refused("No tunnels begin here.")
        self._exchange = None
        self._detour = heads.without_upgrade(method, url, version, fields)

    def _stay(self, rest: bytes) -> None:
        """Begins anew with what ``_decline`` made, and ``rest``, which followed."""
        detour, self._detour = self._detour, b""
        self.parser = httptools.HttpRequestParser(self)
        self._staying = True
        self.data_received(detour + rest)
        self._staying = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        waiting: object = cycle
        if isinstance(waiting, Exchange):
            self._running = waiting
            if waiting.whole:
                # Not at once: of many that are refused, each would be answered within the one
                # before it.
                self.loop.call_soon(waiting.run_in_turn, self.loop)
            elif waiting.refusal is not None:
                self._refuse(waiting, waiting.refusal)
            else:
                self._give_leave(waiting)
            return
        self._started = cycle
        HeldHead(cycle, self.loop)
        super()._start_asgi_task(cycle, app)


def _over() -> InvalidRequest:
    """What comes after an answer that said it was the last one. It gets none itself."""
    return heads.refused("The connection is over.")


def _waits_for_leave(fields: dict[bytes, bytes], version: str) -> bool:
    """Whether the client sends the body only when it is told to."""
    return version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"
