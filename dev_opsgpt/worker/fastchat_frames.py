"""The frames of an answer in FastChat's form: made of an engine's steps, and kept coming.

FastChat's gateway is particular about them: every frame needs its ``error_code``, ``usage`` needs
three integers, ``finish_reason`` knows null, stop and length only, and the text may only grow.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from dev_opsgpt.protocol.completion_answers import legacy_logprobs
from dev_opsgpt.protocol.fastchat import GenerateRequest
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, ToolCallDelta, Usage

Frame = dict[str, Any]


class SoFar:
    """The answer so far: takes steps, gives frames.

    Reasoning stands in the text between ``<think>`` and ``</think>``, and tool calls, which a
    FastChat client cannot ask for, follow it between ``<tool_call>`` and ``</tool_call>``: as the
    models that have them write them, and as FastChat's own worker passes them on.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self._text = request.prompt if request.echo is not False else ""
        self._wants_logprobs = request.logprobs is not None
        self._logprobs: list[TokenLogprob] = []
        self._usage = Usage(prompt_tokens=0, completion_tokens=0)
        self._calls: dict[int, ToolCallDelta] = {}
        self._thinking = False

    def add(self, delta: Delta) -> None:
        """Takes a step."""
        if delta.reasoning:
            self._text += delta.reasoning if self._thinking else f"<think>{delta.reasoning}"
            self._thinking = True
        ended = delta.content or delta.tool_calls or delta.finish_reason
        if self._thinking and ended:
            self._text += "</think>"
            self._thinking = False
        self._text += delta.content
        for call in delta.tool_calls:
            self._add_call(call)
        if delta.finish_reason is not None:
            self._text += "".join(_call_text(call) for call in self._calls.values())
            self._calls.clear()
        self._logprobs += delta.logprobs
        self._usage = delta.usage or self._usage

    def frame(self, finish_reason: str | None = None) -> Frame:
        """The frame that carries everything so far."""
        usage = self._usage
        return {
            "text": self._text,
            "error_code": 0,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            },
            "finish_reason": finish_reason if finish_reason in (None, "length") else "stop",
            "logprobs": legacy_logprobs(self._logprobs, 0) if self._wants_logprobs else None,
        }

    def _add_call(self, call: ToolCallDelta) -> None:
        known = self._calls.get(call.index)
        if known is None:
            self._calls[call.index] = msgspec.structs.replace(call)
        else:
            known.arguments += call.arguments


def _call_text(call: ToolCallDelta) -> str:
    name = msgspec.json.encode(call.name or "").decode()
    arguments = call.arguments or "{}"
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>\n'


async def keep_coming(
    frames: AsyncGenerator[Frame, None], first: Frame, silence: float
) -> AsyncGenerator[Frame, None]:
    """The frames, and the last one again (``first`` before there is one) whenever ``silence``
    seconds pass without a new one.

    FastChat's gateway gives a stream up after 100 s without a byte, which a queue or a long prompt
    easily lasts; a frame that says nothing new it passes over. ``frames`` must not raise: an
    error is a frame too.
    """
    queue: asyncio.Queue[Frame | None] = asyncio.Queue(1)
    task = asyncio.create_task(_pump(frames, queue))
    last = first
    try:
        while True:
            try:
                async with asyncio.timeout(silence):
                    item = await queue.get()
            except TimeoutError:
                item = last
            if item is None:
                return
            last = item
            yield item
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pump(frames: AsyncGenerator[Frame, None], queue: asyncio.Queue[Frame | None]) -> None:
    """One task for all steps of the frames: an engine may bind timeouts to the task it runs in."""
    async with aclosing(frames):
        async for one in frames:
            await queue.put(one)
    await queue.put(None)
