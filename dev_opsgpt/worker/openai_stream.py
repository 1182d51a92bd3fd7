"""OpenAI's event stream, read: bytes of a server or provider -> the deltas of one sequence.

Reads chunks of chat completions and of completions, with what vendors leave out or add: no role,
an empty ``choices`` list, no ``[DONE]``, ``reasoning`` or ``reasoning_content``, tool calls
without ``index`` or ``id``, usage with the last chunk or after it, an error as an event. Only
choice 0 is read: whoever wants several sequences sends several requests.
"""

import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.worker.engine import Delta, TokenLogprob, ToolCallDelta, Usage
from dev_opsgpt.worker.openai_errors import error_of

# What OpenAI sends for a probability of zero.
LEAST_LOGPROB = -9999.0

_FINISH = {"function_call": "tool_calls", "max_tokens": "length", "sensitive": "content_filter"}
_FINISHES = {"stop", "length", "tool_calls", "content_filter"}


class StreamReader:
    """Takes a stream piece by piece and gives its deltas; ``end`` gives the last one.

    ``usage`` is the latest count known: the final one, or the running one that llama.cpp sends
    with each chunk when asked (``timings_per_token``).
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._events = Decoder()
        self._finish: str | None = None
        self._seen = False
        self._done = False
        self._calls: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Delta]:
        """The deltas that ``piece`` completes. Raises ``ApiError`` for an error event and
        ``UpstreamFailed`` for what is not a stream of chunks."""
        for payload in self._events.feed(piece):
            if payload == b"[DONE]":
                self._done = True
                continue
            delta = self._chunk(_object(payload))
            if delta is not None:
                yield delta

    def end(self) -> Delta:
        """The last delta: finish reason and usage. Raises ``UpstreamFailed`` where the stream
        broke off: it gave neither a finish reason nor, after a chunk, ``[DONE]``."""
        finish = self._finish
        if finish is None:
            if not (self._done and self._seen):
                raise UpstreamFailed("The model's stream ended before its answer did.")
            finish = "tool_calls" if self._calls else "stop"
        return Delta(finish_reason=finish, usage=self.usage)

    def _chunk(self, chunk: dict[str, Any]) -> Delta | None:
        error = error_of(chunk)
        if error is not None:
            raise error
        self.usage = _usage(chunk) or self.usage
        choices = chunk.get("choices") or []
        choice = next((c for c in choices if isinstance(c, dict) and not c.get("index")), None)
        if choice is None:
            return None
        self._seen = True
        if choice.get("finish_reason"):
            self._finish = _finish_reason(choice["finish_reason"])
        delta = choice.get("delta") or {}
        found = Delta(
            content=delta.get("content") or choice.get("text") or "",
            reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
            tool_calls=self._tool_calls(delta),
            logprobs=_logprobs(choice.get("logprobs")),
        )
        return found if found != Delta() else None

    def _tool_calls(self, delta: dict[str, Any]) -> list[ToolCallDelta]:
        pieces = delta.get("tool_calls") or []
        if not pieces and delta.get("function_call"):
            pieces = [{"index": 0, "function": delta["function_call"]}]
        return [self._tool_call(piece) for piece in pieces]

    def _tool_call(self, piece: dict[str, Any]) -> ToolCallDelta:
        function = piece.get("function") or {}
        index = piece.get("index")
        if index is None:
            new = not self._calls or (piece.get("id") or self._calls[-1]) != self._calls[-1]
            index = len(self._calls) - (not new)
        found = ToolCallDelta(index=index, arguments=function.get("arguments") or "")
        if index >= len(self._calls):
            found.id = piece.get("id") or new_call_id()
            found.name = function.get("name") or ""
            self._calls.append(found.id)
        return found


def new_call_id() -> str:
    """An id for a tool call that has none."""
    return f"call_{secrets.token_hex(12)}"


async def read_stream(body: AsyncIterable[bytes]) -> AsyncGenerator[Delta, None]:
    """The deltas of a whole stream, the last one with finish reason and usage.

    Raises what ``StreamReader`` raises.
    """
    reader = StreamReader()
    async for piece in body:
        for delta in reader.feed(piece):
            yield delta
    yield reader.end()


def _object(payload: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise UpstreamFailed("The model's stream holds an event that is not a JSON object.")
    return found


def _finish_reason(given: str) -> str:
    if given == "error":
        raise UpstreamFailed("The model's stream ended with an error that it did not name.")
    return given if given in _FINISHES else _FINISH.get(given, "stop")


def _usage(chunk: dict[str, Any]) -> Usage | None:
    timings = chunk.get("timings")
    given = chunk.get("usage")
    if given:
        before = given.get("prompt_tokens_details") or {}
        after = given.get("completion_tokens_details") or {}
        cached = before.get("cached_tokens") or given.get("prompt_cache_hit_tokens") or 0
        return Usage(
            prompt_tokens=given.get("prompt_tokens") or 0,
            completion_tokens=given.get("completion_tokens") or 0,
            cached_tokens=cached,
            reasoning_tokens=after.get("reasoning_tokens") or 0,
        )
    if timings and "predicted_n" in timings:
        cached = max(0, timings.get("cache_n", 0))
        return Usage(cached + timings.get("prompt_n", 0), timings["predicted_n"], cached)
    return None


def _logprobs(given: dict[str, Any] | None) -> list[TokenLogprob]:
    if not given:
        return []
    if "tokens" in given:
        return _completion_logprobs(given)
    return [_logprob(entry) for entry in given.get("content") or []]


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    token = entry.get("token") or ""
    data = entry.get("bytes")
    return TokenLogprob(
        token=token,
        logprob=_number(entry.get("logprob")),
        bytes=list(token.encode()) if data is None else data,
        top=[_logprob(other) for other in entry.get("top_logprobs") or []],
    )


def _completion_logprobs(given: dict[str, Any]) -> list[TokenLogprob]:
    """The older form of completions: parallel lists, ``top_logprobs`` as dictionaries."""
    tokens = given.get("tokens") or []
    values = given.get("token_logprobs") or [None] * len(tokens)
    tops = given.get("top_logprobs") or [None] * len(tokens)
    found = []
    for token, value, top in zip(tokens, values, tops, strict=False):
        likeliest = sorted((top or {}).items(), key=lambda pair: -_number(pair[1]))
        others = [TokenLogprob(t, _number(v), list(t.encode())) for t, v in likeliest]
        found.append(TokenLogprob(token, _number(value), list(token.encode()), others))
    return found


def _number(value: float | None) -> float:
    return LEAST_LOGPROB if value is None else float(value)
