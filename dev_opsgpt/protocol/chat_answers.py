"""Steps of generated sequences -> OpenAI's chat completions, whole and in chunks. Pure."""

from typing import Any

import msgspec

from dev_opsgpt.protocol import sse
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, ToolCallDelta, Usage


def usage_body(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage`` object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def total(usages: list[Usage], prompts: int = 1) -> Usage:
    """The usage of a request from that of its sequences, which stand in order of their prompts.

    A prompt counts once, however many answers were made to it.
    """
    each = max(1, len(usages) // prompts)
    firsts = usages[::each]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in firsts),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in firsts),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
    )


def _token(entry: TokenLogprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": entry.bytes}


def logprobs_body(entries: list[TokenLogprob]) -> dict[str, Any]:
    """OpenAI's ``logprobs`` object of a chat choice."""
    content = [_token(e) | {"top_logprobs": [_token(top) for top in e.top]} for e in entries]
    return {"content": content, "refusal": None}


def _call(call: ToolCallDelta) -> dict[str, Any]:
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


class ChatAnswer:
    """One answer to a chat request with ``choices`` sequences; fed steps, it gives chunks, and at
    the end the whole.

    ``logprobs`` says whether they were asked for, ``include_usage`` whether a stream ends with a
    usage chunk.
    """

    def __init__(
        self,
        id_: str,
        created: int,
        model: str,
        *,
        choices: int = 1,
        logprobs: bool = False,
        include_usage: bool = False,
    ) -> None:
        self._head = {"id": f"chatcmpl-{id_}", "created": created, "model": model}
        self._choices = [_Choice() for _ in range(choices)]
        self._logprobs = logprobs
        self._include_usage = include_usage

    def add(self, index: int, delta: Delta) -> None:
        """Takes a step of sequence ``index``."""
        self._choices[index].add(delta)

    def chunks(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Takes a step and gives the chunks that carry it to a streaming client."""
        choice = self._choices[index]
        out = [] if choice.begun else [self._chunk(index, {"role": "assistant", "content": ""})]
        choice.begun = True
        choice.usage = delta.usage or choice.usage
        change: dict[str, Any] = {}
        if delta.content:
            change["content"] = delta.content
        if delta.reasoning:
            change["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            change["tool_calls"] = [_call(call) for call in delta.tool_calls]
        if change or delta.logprobs:
            logprobs = logprobs_body(delta.logprobs) if delta.logprobs else None
            out.append(self._chunk(index, change, logprobs))
        if delta.finish_reason is not None:
            out.append(self._chunk(index, {}, finish_reason=delta.finish_reason))
        return out

    def events(self, index: int, delta: Delta) -> bytes:
        """The same as ``chunks``, as the bytes of events."""
        choice = self._choices[index]
        if delta.content and choice.begun and delta == Delta(delta.content):
            # Most of a stream is this: only the text differs.
            before, after = choice.frame = choice.frame or self._frame(index)
            return before + msgspec.json.encode(delta.content) + after
        return b"".join(sse.event(msgspec.json.encode(c)) for c in self.chunks(index, delta))

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the text in an event of nothing but text."""
        chunk = sse.event(msgspec.json.encode(self._chunk(index, {"content": ""})))
        before, _, after = chunk.rpartition(b'""')
        return before, after

    def last_chunk(self) -> dict[str, Any] | None:
        """The chunk with the usage, where one was asked for."""
        if not self._include_usage:
            return None
        usage = usage_body(total([choice.usage for choice in self._choices]))
        return self._head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}

    def whole(self) -> dict[str, Any]:
        """The plain answer."""
        choices = [self._choice(i, choice) for i, choice in enumerate(self._choices)]
        usage = usage_body(total([choice.usage for choice in self._choices]))
        return self._head | {"object": "chat.completion", "choices": choices, "usage": usage}

    def _choice(self, index: int, choice: "_Choice") -> dict[str, Any]:
        content = "".join(choice.content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content if content or not choice.calls else None,
            "refusal": None,
        }
        if choice.reasoning:
            message["reasoning_content"] = "".join(choice.reasoning)
        if choice.calls:
            message["tool_calls"] = list(choice.calls.values())
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs_body(choice.logprobs) if self._logprobs else None,
            "finish_reason": choice.finish_reason,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if self._include_usage else chunk


class _Choice:
    """What has come of one sequence so far."""

    def __init__(self) -> None:
        self.begun = False
        self.frame: tuple[bytes, bytes] | None = None
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None
        self.usage = Usage(prompt_tokens=0, completion_tokens=0)

    def add(self, delta: Delta) -> None:
        self.content.append(delta.content)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        for call in delta.tool_calls:
            self._add_call(call)
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage

    def _add_call(self, call: ToolCallDelta) -> None:
        known = self.calls.get(call.index)
        if known is None:
            function = {"name": call.name or "", "arguments": call.arguments}
            self.calls[call.index] = {"id": call.id, "type": "function", "function": function}
        else:
            known["function"]["arguments"] += call.arguments
