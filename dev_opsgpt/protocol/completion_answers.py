"""Steps of generated sequences -> OpenAI's (legacy) completions, whole and in chunks. Pure."""

from typing import Any

import msgspec

from dev_opsgpt.protocol import sse
from dev_opsgpt.protocol.chat_answers import total, usage_body
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, Usage


class CompletionAnswer:
    """One answer to a completion request: ``prompts`` prompts with ``choices`` sequences each,
    numbered prompt by prompt. ``echoes`` holds, for each prompt, the text to be put before its
    answers."""

    def __init__(
        self,
        id_: str,
        created: int,
        model: str,
        *,
        echoes: list[str],
        choices: int = 1,
        logprobs: bool = False,
        include_usage: bool = False,
    ) -> None:
        self._head = {
            "id": f"cmpl-{id_}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._prompts = len(echoes)
        self._sequences = [_Sequence(echo) for echo in echoes for _ in range(choices)]
        self._logprobs = logprobs
        self._include_usage = include_usage

    def add(self, index: int, delta: Delta) -> None:
        """Takes a step of sequence ``index``."""
        self._sequences[index].add(delta)

    def chunks(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Takes a step and gives the chunks that carry it to a streaming client."""
        sequence = self._sequences[index]
        offset = sequence.length
        sequence.add(delta)
        text = delta.content
        if not sequence.begun:
            sequence.begun = True
            text, offset = sequence.echo + text, 0
        if not (text or delta.logprobs or delta.finish_reason):
            return []
        logprobs = legacy_logprobs(delta.logprobs, offset) if delta.logprobs else None
        choice = self._choice(index, text, logprobs, delta.finish_reason)
        chunk = self._head | {"choices": [choice]}
        return [chunk | {"usage": None} if self._include_usage else chunk]

    def events(self, index: int, delta: Delta) -> bytes:
        """The same as ``chunks``, as the bytes of events."""
        return b"".join(sse.event(msgspec.json.encode(c)) for c in self.chunks(index, delta))

    def last_chunk(self) -> dict[str, Any] | None:
        """The chunk with the usage, where one was asked for."""
        if not self._include_usage:
            return None
        return self._head | {"choices": [], "usage": self._usage()}

    def whole(self) -> dict[str, Any]:
        """The plain answer."""
        choices = []
        for index, sequence in enumerate(self._sequences):
            start = len(sequence.echo)
            logprobs = legacy_logprobs(sequence.logprobs, start) if self._logprobs else None
            text = sequence.echo + "".join(sequence.text)
            choices.append(self._choice(index, text, logprobs, sequence.finish_reason))
        return self._head | {"choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        return usage_body(total([s.usage for s in self._sequences], self._prompts))

    @staticmethod
    def _choice(
        index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }


def legacy_logprobs(entries: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """OpenAI's ``logprobs`` object of a completion; ``offset`` is where the first token's text
    stands in the choice's text, in characters."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry.token)
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{top.token: top.logprob for top in entry.top} for entry in entries],
        "text_offset": offsets,
    }


class _Sequence:
    """What has come of one sequence so far."""

    def __init__(self, echo: str) -> None:
        self.echo = echo
        self.begun = False
        self.text: list[str] = []
        self.length = len(echo)
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)

    def add(self, delta: Delta) -> None:
        self.text.append(delta.content)
        self.length += len(delta.content)
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage
