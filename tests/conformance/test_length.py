"""Limits, usage, and several answers at once."""

from typing import Any

import httpx
import openai
import pytest

from tests.conformance.ask import QUESTION, WILD, both, fields_of, plain, says
from tests.conformance.target import Can, Target


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_is_kept(client: openai.AsyncOpenAI, target: Target, name: str) -> None:
    whole = await plain(client, target, max_tokens=60)
    for limit in (1, 2, 5):
        answer = await both(client, target, **{name: limit})
        assert (answer.finish, answer.tokens) == ("length", limit)
        assert whole.text.startswith(answer.text)


async def test_the_newer_name_goes_before_the_older(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    assert (await plain(client, target, max_tokens=9, max_completion_tokens=2)).tokens == 2


async def test_an_answer_that_ends_by_itself(client: openai.AsyncOpenAI, target: Target) -> None:
    answer = await both(client, target, max_tokens=400)
    assert answer.finish == "stop"
    assert 0 < answer.tokens < 400
    # One more token is allowed than there are: nothing changes.
    again = await plain(client, target, max_tokens=answer.tokens + 1)
    assert (again.text, again.finish, again.tokens) == (answer.text, "stop", answer.tokens)


async def test_prompt_tokens_are_those_of_the_rendered_prompt(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, target: Target
) -> None:
    target.need(Can.TOKEN_CHECK)
    if target.render is None:
        pytest.skip("the chat template is not known")
    for text in (QUESTION, "你好 😀", "a" * 50):
        item = {"model": target.model, "prompt": target.render(text), "max_tokens": 1}
        url = f"{target.root}/api/v1/token_check"
        checked = (await http.post(url, json={"prompts": [item]})).json()["prompts"][0]
        assert checked["contextLength"] == target.context
        answer = await both(client, target, text, max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == checked["tokenCount"]
        if Can.COMPLETIONS in target.can:
            raw = await client.completions.create(
                model=target.model, prompt=target.render(text), max_tokens=1
            )
            assert raw.usage is not None
            assert raw.usage.prompt_tokens == checked["tokenCount"]


async def test_usage_comes_last_in_a_stream(client: openai.AsyncOpenAI, target: Target) -> None:
    given: dict[str, Any] = {"model": target.model, "messages": says(QUESTION), "max_tokens": 4}
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    stream = await client.chat.completions.create(**given, **asked)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    bare = await client.chat.completions.create(**given, stream=True)
    assert [chunk async for chunk in bare if chunk.usage is not None or not chunk.choices] == []


async def test_several_answers(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.N)
    given = fields_of(
        target, {"messages": says(QUESTION), **WILD, "n": 3, "max_tokens": 7, "seed": 5}
    )
    if target.end_tokens:
        given["logit_bias"] = target.endless
    whole = await client.chat.completions.create(**given)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    one = await client.chat.completions.create(**(given | {"n": 1}))
    assert one.usage is not None
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens
    if target.end_tokens:
        assert whole.usage.completion_tokens == 21
    pieces = ["", "", ""]
    async for chunk in await client.chat.completions.create(**given, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    if Can.SEED in target.can:
        assert pieces == texts
