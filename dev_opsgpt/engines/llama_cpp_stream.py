"""llama.cpp's own completion stream, read: bytes -> the deltas of one sequence.

Its ``/completion`` takes prompts with images, which its OpenAI route does not, and costs less: each
event tells the tokens so far, so that no timings need to be asked for with each of them.
"""

from collections.abc import Iterator

import msgspec

from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.worker.engine import Delta, TokenLogprob, Usage
from dev_opsgpt.worker.openai_errors import error_of
from dev_opsgpt.worker.openai_stream import LEAST_LOGPROB


class _Likely(msgspec.Struct):
    """A token that could have come; an impossible one has null for its probability."""

    token: str = ""
    bytes: list[int] = []
    logprob: float | None = None


class _Chosen(_Likely):
    """The token that came, and the likeliest at its place."""

    top_logprobs: list[_Likely] = []


class _Progress(msgspec.Struct):
    cache: int = 0


class _Event(msgspec.Struct):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    prompt_progress: _Progress | None = None
    completion_probabilities: list[_Chosen] = []
    error: msgspec.Raw | None = None


class CompletionReader:
    """Takes a stream piece by piece and gives its deltas; ``end`` gives the last one.

    ``usage`` is the count so far.
    """

    def __init__(self) -> None:
        self._events = Decoder()
        self._decode = msgspec.json.Decoder(_Event).decode
        self._cached = 0
        self._prompt = self._generated = 0
        self._finish: str | None = None

    @property
    def usage(self) -> Usage:
        """The count so far."""
        return Usage(self._prompt, self._generated, self._cached)

    def feed(self, piece: bytes) -> Iterator[Delta]:
        """The deltas that ``piece`` completes. Raises ``ApiError`` for an error event and
        ``UpstreamFailed`` for what is no event of a completion."""
        for payload in self._events.feed(piece):
            if payload == b"[DONE]":
                continue
            try:
                event = self._decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise UpstreamFailed(
                    "The model's stream holds an event that cannot be read."
                ) from None
            if event.error is not None:
                raise error_of(msgspec.json.decode(payload)) or UpstreamFailed("The model failed.")
            if (delta := self._delta(event)) is not None:
                yield delta

    def end(self) -> Delta:
        """The last delta: finish reason and usage. Raises ``UpstreamFailed`` where the stream
        broke off."""
        if self._finish is None:
            raise UpstreamFailed("The model's stream ended before its answer did.")
        return Delta(finish_reason=self._finish, usage=self.usage)

    def _delta(self, event: _Event) -> Delta | None:
        self._generated = event.tokens_predicted
        self._prompt = event.tokens_evaluated
        if event.prompt_progress is not None:
            self._cached = event.prompt_progress.cache
        if event.stop:
            self._finish = "stop" if event.stop_type in ("eos", "word") else "length"
        if event.completion_probabilities:
            logprobs = [_chosen(entry) for entry in event.completion_probabilities]
            return Delta(content=event.content, logprobs=logprobs)
        return Delta(content=event.content) if event.content else None


def _chosen(entry: _Chosen) -> TokenLogprob:
    found = _likely(entry)
    found.top = [_likely(other) for other in entry.top_logprobs]
    return found


def _likely(entry: _Likely) -> TokenLogprob:
    logprob = LEAST_LOGPROB if entry.logprob is None else entry.logprob
    return TokenLogprob(entry.token, logprob, entry.bytes)
