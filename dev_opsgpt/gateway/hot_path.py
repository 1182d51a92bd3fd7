"""The hot path: who asks, for what, within which limits; then the bytes are forwarded.

No validation and no re-serialising here: the worker validates. Every request leaves one record,
whatever became of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from math import inf

from dev_opsgpt.gateway.auth import Caller, Keys
from dev_opsgpt.gateway.forward import Forwarder
from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import Lease, Limits
from dev_opsgpt.gateway.peek import Peek, peek
from dev_opsgpt.gateway.prices import cost
from dev_opsgpt.gateway.relay import Refused, error_event, finish_stream, tell_waiting
from dev_opsgpt.gateway.request import Request, text_of
from dev_opsgpt.gateway.request_id import RequestIds
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.gateway.tracing import Trace, Tracing
from dev_opsgpt.protocol.errors import ApiError, InternalError, InvalidRequest, UpstreamTimeout
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.routing.candidate import Asked
from dev_opsgpt.routing.capabilities import prompt_tokens
from dev_opsgpt.transport.exchange import Exchange

log = logging.getLogger(__name__)

RERANK = "/v1/rerank"
# Where the clients of Jina, Cohere's API v2 and vLLM ask for the same.
RERANK_TOO = ("/rerank", "/v2/rerank")
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", RERANK, *RERANK_TOO)
# What a client that hung up is said to have got; nginx's number.
CLIENT_GONE = 499
GONE = "client_disconnected"
# After these a model may have worked in vain, nobody knows how much; after any other failure
# nothing was used.
IN_VAIN = frozenset({CLIENT_GONE, UpstreamTimeout.status})
# Of a model that does not exist so much of its name is kept: it can be as long as a body.
LONGEST_NAME = 512

Sink = Callable[[Record], None]


class Visit:
    """What is known of a request from its head on, and what has to be ended with it."""

    __slots__ = ("caller", "lease", "record", "trace")

    def __init__(self, record: Record, caller: Caller) -> None:
        self.record = record
        self.caller = caller
        self.lease: Lease | None = None
        self.trace: Trace | None = None


class HotPath:
    """Answers the routes that carry generations; a ``Handler`` for ``Exchange``s.

    ``sinks`` get the record of each request that was let in, ``doormen`` those of requests that
    were not, which are a stranger's to cause and must not fill a database. ``streams`` counts the
    streams that are under way. ``clock`` is monotonic, ``wall`` Unix time, in seconds.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        keys: Keys,
        limits: Limits,
        tracing: Tracing,
        ids: RequestIds,
        *,
        sinks: Sequence[Sink],
        doormen: Sequence[Sink],
        max_body: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.max_body = max_body
        self._forwarder = forwarder
        self._keys = keys
        self._limits = limits
        self._tracing = tracing
        self._ids = ids
        self._sinks = sinks
        self._doormen = doormen
        self._clock = clock
        self._wall = wall
        self.streams = 0

    def begin(self, exchange: Exchange) -> None:
        """Lets the caller in, by the head of its request. Raises ``AuthenticationFailed``."""
        exchange.arrived = self._clock()
        request_id = self._ids.of(exchange.headers.get(b"x-request-id"))
        exchange.extra = b"x-request-id: %b\r\n" % request_id.encode()
        record = Record(request_id, self._wall(), exchange.path, client=exchange.client)
        try:
            caller = self.admit(exchange)
        except ApiError as error:
            record.status, record.error = error.status, error.code
            for sink in self._doormen:
                sink(record)
            raise
        record.key, record.owner = caller.id, caller.owner
        exchange.context = Visit(record, caller)

    def refused(self, exchange: Exchange, error: ApiError) -> None:
        """Writes down a request whose body was too large or broken."""
        visit: Visit = exchange.context
        visit.record.status, visit.record.error = error.status, error.code
        self._finish(exchange, visit)

    def abandoned(self, exchange: Exchange) -> None:
        """Writes down a request whose client hung up before it had sent all of it, or while it
        waited for the answer to one before it on the same connection."""
        visit: Visit = exchange.context
        visit.record.status, visit.record.error = CLIENT_GONE, GONE
        self._finish(exchange, visit)

    def admit(self, exchange: Exchange) -> Caller:
        """Who asks. Raises ``AuthenticationFailed``."""
        return self._keys.admit(exchange.headers.get(b"authorization"), exchange.client)

    async def __call__(self, exchange: Exchange) -> None:
        """Answers one request."""
        visit: Visit = exchange.context
        record = visit.record
        try:
            if self._tracing.always or b"traceparent" in exchange.headers:
                visit.trace = self._tracing.begin(exchange.headers, record)
            asked, body = self.read(exchange)
            record.model, record.stream = asked.model, asked.stream is True
            self.streams += record.stream
            caller = visit.caller
            caller.check_model(asked.model)
            if caller.key is not None and caller.key.limited:
                lease = await self._limits.admit(caller.key, _estimate(caller.key, body))
                visit.lease = lease
                exchange.extra += lease.header_lines()
            await self._answer(exchange, record, caller, asked, body)
        except asyncio.CancelledError:
            record.status, record.error = CLIENT_GONE, GONE
            raise
        except Refused as refused:
            record.status, record.error = refused.status, refused.code
            exchange.answer(refused.status, refused.head, refused.body)
        except ApiError as error:
            record.status, record.error = error.status, error.code
            exchange.fail(error)
        except Exception:
            log.exception("request %s failed", record.request_id)
            failed = InternalError("The server failed to answer; see its log.")
            record.status, record.error = failed.status, failed.code
            exchange.fail(failed)
        finally:
            self._finish(exchange, visit)

    def read(self, exchange: Exchange) -> tuple[Peek, bytes]:
        """What is asked for, and the body for the worker."""
        return peek(exchange.body), exchange.body

    def serve(self, request: Request, route: Route) -> Awaitable[None]:
        """Has the request answered."""
        return self._forwarder.serve(request, route)

    async def _answer(
        self, exchange: Exchange, record: Record, caller: Caller, asked: Peek, body: bytes
    ) -> None:
        route = self._forwarder.routes.of(asked.model)
        request = Request(
            exchange,
            caller,
            record,
            asked,
            path=worker_path(exchange.path),
            body=body,
            trace=exchange.context.trace,
            ask_usage=route.stream_usage,
            clock=self._clock,
        )
        if route.reads:
            request.asked = _asked(route, exchange, asked)
        seconds = _seconds(exchange.headers.get(b"x-request-timeout"), route.request_timeout)
        try:
            if seconds is None:
                await self.serve(request, route)
            else:
                async with asyncio.timeout(seconds):
                    await self.serve(request, route)
        except ApiError as failed:
            if request.exchange is exchange:
                raise
            tell_waiting(request, failed)
        except TimeoutError:
            message = f"The request was not answered within {seconds:g} seconds."
            error = UpstreamTimeout(message, code="request_timeout")
            if not exchange.started:
                raise error from None
            if exchange.response_complete:
                return
            record.error = error.code
            if record.stream:
                finish_stream(request)
                exchange.end(error_event(request, error))
            else:
                exchange.fail(error)
        finally:
            request.close()

    def _finish(self, exchange: Exchange, visit: Visit) -> None:
        record = visit.record
        self.streams -= record.stream
        record.duration = self._clock() - exchange.arrived
        forwarder = self._forwarder
        if not record.served and record.model:
            if forwarder.known(record.model):
                # Nobody answered, but the name is no client's invention.
                record.served = record.model
            record.model = record.model[:LONGEST_NAME]
        record.cost = cost(record, forwarder.routes.of(record.served))
        if visit.lease is not None:
            tokens = record.tokens
            if tokens is None and record.status >= 400 and record.status not in IN_VAIN:
                tokens = 0
            self._limits.settle(visit.lease, tokens, record.cost or 0.0)
        if visit.trace is not None:
            visit.trace.end(record)
        for sink in self._sinks:
            sink(record)


def worker_path(path: str) -> str:
    """The route of a worker that answers a hot path."""
    if path in RERANK_TOO:
        return RERANK
    return path if path.startswith("/v1/") else "/v1" + path


def _estimate(key: Key, body: bytes) -> int:
    """The tokens of a request before anybody has counted them; 0 for a key that has no limit on
    them. The answer's are counted when it is there."""
    return 0 if key.tpm is None else prompt_tokens(body)


def _asked(route: Route, exchange: Exchange, asked: Peek) -> Asked:
    """What the model's dispatch policy wants to know of the request."""
    session = None
    if "session" in route.reads:
        named = exchange.headers.get(route.affinity_header.lower().encode())
        session = named.decode("latin-1") if named else None
        for raw in (asked.prompt_cache_key, asked.user):
            session = session or (text_of(raw) if raw else None)
    prompt = bytes(asked.messages or asked.prompt) if "prompt" in route.reads else b""
    return Asked(session, prompt)


def _seconds(header: bytes | None, configured: float | None) -> float | None:
    """How long a request may take: what the configuration allows, or less if its client says so."""
    if header is None:
        return configured
    try:
        wanted = float(header)
    except ValueError:
        wanted = 0.0
    if not 0 < wanted < inf:
        message = "'x-request-timeout' must be a number of seconds greater than 0."
        raise InvalidRequest(message, param="x-request-timeout")
    return wanted if configured is None else min(wanted, configured)
