"""Frames of a FastChat worker -> the steps of one generated sequence. Pure.

A frame repeats the whole text so far, and may end in the middle of a character that takes several
tokens: a replacement character stands there until the rest has come.
"""

import msgspec

from dev_opsgpt.protocol.errors import FROM_FASTCHAT, ApiError, Unsupported, UpstreamFailed
from dev_opsgpt.protocol.fastchat import Frame
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, Usage

LONGEST_MESSAGE = 1000
LEAST_LOGPROB = -9999.0
_REPLACEMENT = "\ufffd"
_FINISH = ("stop", "length", "content_filter")


class _Logprobs(msgspec.Struct):
    """FastChat's ``logprobs``: parallel lists over all tokens so far."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


def error_of(frame: Frame) -> ApiError:
    """The error that a frame with an ``error_code`` stands for."""
    kind = FROM_FASTCHAT.get(frame.error_code, UpstreamFailed)
    text = frame.text[:LONGEST_MESSAGE] or "The model's worker failed and did not say why."
    return kind(text)


class FrameReader:
    """Takes the frames of one answer, gives its steps; ``end`` gives the last one.

    ``logprobs`` says whether they were asked for. ``usage`` is the worker's own count, where it
    gave one; ``text`` is the whole answer.
    """

    def __init__(self, *, logprobs: bool = False) -> None:
        self.text = ""
        self.usage: Usage | None = None
        self._wants_logprobs = logprobs
        self._scored = 0
        self._sent = 0
        self._finish: str | None = None
        self._seen = False

    def add(self, frame: Frame) -> Delta | None:
        """The step that a frame makes, if it says anything new. Raises the error it carries, and
        ``Unsupported`` where log probabilities were asked for and do not come."""
        if frame.error_code:
            raise error_of(frame)
        self._seen = True
        self._finish = frame.finish_reason or self._finish
        self.usage = _usage(frame) or self.usage
        if len(frame.text) >= self._sent:
            # A text that shrank lost what was held back; what was sent cannot be taken back.
            self.text = frame.text
        logprobs = self._logprobs(frame)
        content = self._new(len(self.text.rstrip(_REPLACEMENT)))
        return Delta(content=content, logprobs=logprobs) if content or logprobs else None

    def end(self, usage: Usage) -> Delta:
        """The last step. Raises ``UpstreamFailed`` where there was no frame at all."""
        if not self._seen:
            raise UpstreamFailed("The model's worker ended its answer before it began.")
        finish = self._finish or "stop"
        content = self._new(len(self.text))
        finish = finish if finish in _FINISH else "stop"
        return Delta(content=content, finish_reason=finish, usage=usage)

    def _new(self, until: int) -> str:
        """The text up to a place that has not been given yet."""
        content = self.text[self._sent : until]
        self._sent = max(self._sent, until)
        return content

    def _logprobs(self, frame: Frame) -> list[TokenLogprob]:
        if not self._wants_logprobs:
            return []
        if frame.logprobs is None:
            if frame.text and not self._scored:
                raise Unsupported("This model gives no log probabilities.", param="logprobs")
            return []
        try:
            given = msgspec.convert(frame.logprobs, _Logprobs)
        except msgspec.ValidationError as error:
            raise UpstreamFailed(f"The worker's log probabilities are broken: {error}") from None
        start, self._scored = self._scored, max(self._scored, len(given.tokens))
        return [_logprob(given, place) for place in range(start, len(given.tokens))]


def _logprob(given: _Logprobs, place: int) -> TokenLogprob:
    values, tops = given.token_logprobs, given.top_logprobs
    top = (tops[place] if place < len(tops) else None) or {}
    likeliest = sorted(top.items(), key=lambda pair: -pair[1])
    return _entry(
        given.tokens[place],
        values[place] if place < len(values) else None,
        [_entry(token, value) for token, value in likeliest],
    )


def _entry(token: str, value: float | None, top: list[TokenLogprob] | None = None) -> TokenLogprob:
    logprob = LEAST_LOGPROB if value is None else value
    return TokenLogprob(token, logprob, list(token.encode()), top or [])


def _usage(frame: Frame) -> Usage | None:
    given = frame.usage or {}
    prompt, completion = given.get("prompt_tokens"), given.get("completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int):
        return Usage(prompt_tokens=prompt, completion_tokens=completion)
    return None
