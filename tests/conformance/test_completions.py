"""The older route: prompts as texts, lists and token ids, echoed or not."""

from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from openai.types import Completion

from tests.conformance.ask import fields_of
from tests.conformance.target import Can, Target

PROMPTS = ["The sun", "你好，世界 😀", "def add(a, b):\n"]


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.COMPLETIONS)


Complete = Callable[..., Awaitable[list[str]]]


@pytest.fixture
def complete(client: openai.AsyncOpenAI, relaxed: openai.AsyncOpenAI, target: Target) -> Complete:
    """Gives the texts of a greedy answer, plain; streamed they are found to be the same."""

    async def ask(**fields: Any) -> list[str]:
        given = fields_of(target, {"temperature": 0, "max_tokens": 8, **fields})
        whole = await client.completions.create(**given)
        assert [choice.index for choice in whole.choices] == list(range(len(whole.choices)))
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await relaxed.completions.create(**given, **asked)
        assert _put_together([chunk async for chunk in stream]) == _parts(whole)
        return [choice.text for choice in whole.choices]

    return ask


def _parts(whole: Completion) -> list[Any]:
    assert whole.usage is not None
    texts = {choice.index: choice.text for choice in whole.choices}
    finishes = {choice.index: choice.finish_reason for choice in whole.choices}
    return [texts, finishes, whole.usage.prompt_tokens, whole.usage.completion_tokens]


def _put_together(chunks: list[Completion]) -> list[Any]:
    texts: dict[int, str] = {}
    finishes = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason is not None:
                finishes[choice.index] = choice.finish_reason
    usage = chunks[-1].usage
    assert usage is not None
    return [texts, finishes, usage.prompt_tokens, usage.completion_tokens]


async def test_a_list_of_prompts(complete: Complete) -> None:
    alone = [(await complete(prompt=prompt))[0] for prompt in PROMPTS]
    assert await complete(prompt=PROMPTS) == alone


async def test_several_answers_to_several_prompts(complete: Complete, target: Target) -> None:
    target.need(Can.N)
    alone = await complete(prompt=PROMPTS[:2])
    twice = await complete(prompt=PROMPTS[:2], n=2)
    assert twice == [alone[0], alone[0], alone[1], alone[1]]


async def test_echo(client: openai.AsyncOpenAI, target: Target, complete: Complete) -> None:
    target.need(Can.ECHO)
    for prompt in PROMPTS:
        (text,) = await complete(prompt=prompt)
        assert await complete(prompt=prompt, echo=True) == [prompt + text]
    nothing = await client.completions.create(
        model=target.model, prompt=PROMPTS, max_tokens=0, echo=True
    )
    assert [choice.text for choice in nothing.choices] == PROMPTS
    assert {choice.finish_reason for choice in nothing.choices} == {"length"}
    assert nothing.usage is not None
    assert nothing.usage.completion_tokens == 0


async def test_token_ids(client: openai.AsyncOpenAI, target: Target, complete: Complete) -> None:
    target.need(Can.TOKEN_IDS)
    ids = [[70, 71, 72], [80, 81]]
    alone = [(await complete(prompt=some))[0] for some in ids]
    assert await complete(prompt=ids) == alone
    answer = await client.completions.create(model=target.model, prompt=ids, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


async def test_an_empty_prompt(complete: Complete) -> None:
    assert len(await complete(prompt="")) == 1
