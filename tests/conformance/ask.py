"""Questions to a target by the openai client, streamed or plain, with one form of the answer."""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionTokenLogprob

from tests.conformance.target import Target

QUESTION = "Hello! What is your name? "
# Fields that are not OpenAI's own; its client takes them in ``extra_body`` only.
EXTRA = frozenset({"top_k", "min_p", "repetition_penalty"})
# All tokens may come, and none is much likelier than others: what is drawn tells of the seed.
WILD: dict[str, Any] = {"temperature": 2, "top_p": 1, "top_k": 0, "min_p": 0}


@dataclass
class Answer:
    """One choice of an answer. ``calls`` are (id, name, arguments)."""

    text: str = ""
    finish: str | None = None
    usage: CompletionUsage | None = None
    logprobs: list[ChatCompletionTokenLogprob] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """The tokens of the answer, as told in its usage."""
        assert self.usage is not None
        assert self.usage.total_tokens == self.usage.prompt_tokens + self.usage.completion_tokens
        return self.usage.completion_tokens


Found = TypeVar("Found")
# As many as a worker takes at once by default.
CROWD = 5


async def all_of(asked: Iterable[Awaitable[Found]]) -> list[Found]:
    """What they all find, a few at a time: an engine that batches is sooner done. What is free
    to write may come out differently from llama.cpp in a batch."""
    turns = asyncio.Semaphore(CROWD)

    async def one(work: Awaitable[Found]) -> Found:
        async with turns:
            return await work

    return await asyncio.gather(*(one(work) for work in asked))


def says(text: str) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def fields_of(target: Target, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as keyword arguments of the openai client."""
    extra = {name: value for name, value in fields.items() if name in EXTRA}
    own = {name: value for name, value in fields.items() if name not in EXTRA}
    return {"model": target.model, "extra_body": extra or None, **own}


async def plain(
    client: openai.AsyncOpenAI, target: Target, text: str = QUESTION, **fields: Any
) -> Answer:
    """The first choice of a plain chat completion."""
    given = fields_of(target, {"messages": says(text), "temperature": 0, **fields})
    whole = await client.chat.completions.create(**given)
    choice = whole.choices[0]
    logprobs = choice.logprobs.content or [] if choice.logprobs else []
    calls = []
    for call in choice.message.tool_calls or []:
        assert call.type == "function"
        calls.append((call.id, call.function.name, call.function.arguments))
    text = choice.message.content or ""
    return Answer(text, choice.finish_reason, whole.usage, logprobs, calls, [text])


async def streamed(
    client: openai.AsyncOpenAI, target: Target, text: str = QUESTION, **fields: Any
) -> Answer:
    """The first choice of a streamed chat completion, put together."""
    defaults = {"temperature": 0, "stream_options": {"include_usage": True}}
    given = fields_of(target, {"messages": says(text), **defaults, **fields})
    answer = Answer()
    heads: dict[int, tuple[str, str]] = {}
    arguments: dict[int, str] = {}
    async for chunk in await client.chat.completions.create(stream=True, **given):
        answer.usage = chunk.usage or answer.usage
        for choice in chunk.choices:
            assert answer.finish is None, "something came after the finish reason"
            answer.finish = choice.finish_reason
            if choice.delta.content:
                answer.pieces.append(choice.delta.content)
            if choice.logprobs:
                answer.logprobs += choice.logprobs.content or []
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                if call.id is not None:
                    heads[call.index] = (call.id, call.function.name or "")
                more = call.function.arguments or ""
                arguments[call.index] = arguments.get(call.index, "") + more
    answer.text = "".join(answer.pieces)
    answer.calls = [(*heads[index], arguments[index]) for index in sorted(heads)]
    return answer


async def both(
    client: openai.AsyncOpenAI, target: Target, text: str = QUESTION, **fields: Any
) -> Answer:
    """The plain answer, after it was found to be the same as the streamed one."""
    whole = await plain(client, target, text, **fields)
    pieces = await streamed(client, target, text, **fields)
    assert pieces.text == whole.text
    assert pieces.finish == whole.finish
    assert pieces.tokens == whole.tokens
    assert [call[1:] for call in pieces.calls] == [call[1:] for call in whole.calls]
    assert [entry.token for entry in pieces.logprobs] == [entry.token for entry in whole.logprobs]
    return whole
