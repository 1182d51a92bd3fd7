"""An engine that does what a test says, where a real model would only get in the way."""

import asyncio
from collections.abc import AsyncGenerator

from dev_opsgpt.protocol.errors import ContextLengthExceeded, UpstreamFailed
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import Abilities, Delta, TokenLogprob, ToolCallDelta, Usage


class ScriptedEngine:
    """Answers with the words of the last message, one a step, ``delay`` seconds apart.

    Some messages have a meaning of their own: "hang" waits for ever, "refuse" and "break" raise
    before and after the first step, "call" makes a tool call. ``active`` counts what is at work,
    ``closed`` is set when an answer was given up.
    """

    context_length = 4096
    abilities = Abilities(context_length=4096, tools=True, vision=False)

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.active = 0
        self.served = 0
        self.started = self.stopped = False
        self.closed = asyncio.Event()

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.stopped = True

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        self.active += 1
        self.served += 1
        try:
            async for delta in self._say(request.messages[-1].text(), request):
                yield delta
        except (asyncio.CancelledError, GeneratorExit):
            self.closed.set()
            raise
        finally:
            self.active -= 1

    async def _say(self, text: str, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        if text == "refuse":
            raise ContextLengthExceeded("It is too long.", param="messages")
        if text == "call":
            yield Delta(tool_calls=[ToolCallDelta(0, "call_1", "add", '{"a"')])
            yield Delta(tool_calls=[ToolCallDelta(0, arguments=": 1}")])
            yield Delta(finish_reason="tool_calls", usage=Usage(3, 2))
            return
        words = text.split(" ")
        for word in words:
            await asyncio.sleep(self.delay)
            logprobs = [_logprob(word)] if request.logprobs else []
            yield Delta(content=word + " ", logprobs=logprobs)
            if text == "break":
                raise UpstreamFailed("The engine broke.")
            if text == "hang":
                await asyncio.sleep(3600)
        yield Delta(finish_reason="stop", usage=Usage(len(words), len(words), cached_tokens=1))

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        text = f"<{prompt}:{index}>"
        logprobs = [_logprob(text)] if request.logprobs is not None else []
        yield Delta(content=text, logprobs=logprobs)
        yield Delta(finish_reason="length", usage=Usage(5, 1))

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        return [[float(len(one)), 0.5] for one in inputs], 7

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """How often the query stands in each document."""
        return [float(text.count(request.query)) for text in request.texts], 9

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        return len(prompt.messages) if isinstance(prompt, ChatRequest) else len(prompt)


def _logprob(text: str) -> TokenLogprob:
    data = list(text.encode())
    return TokenLogprob(text, -0.5, data, [TokenLogprob(text, -0.5, data)])
