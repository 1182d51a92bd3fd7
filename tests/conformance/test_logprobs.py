"""Log probabilities: of every token of the text, with the likeliest at its place."""

import math

import openai
import pytest

from tests.conformance.ask import QUESTION, both, plain
from tests.conformance.target import Can, Target


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.LOGPROBS)


@pytest.mark.parametrize("question", [QUESTION, "你好！你叫什么名字？"])
async def test_the_tokens_are_the_text(
    client: openai.AsyncOpenAI, target: Target, question: str
) -> None:
    answer = await both(client, target, question, max_tokens=20, logprobs=True, top_logprobs=4)
    data = b"".join(bytes(entry.bytes or b"") for entry in answer.logprobs)
    assert data.decode() == answer.text
    # The token that ends an answer is counted, not shown.
    assert len(answer.logprobs) in (answer.tokens, answer.tokens - (answer.finish == "stop"))
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 4
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.001
        values = [top.logprob for top in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        # At temperature 0 the likeliest is taken.
        assert entry.top_logprobs[0].bytes == entry.bytes
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob, abs=1e-3)


async def test_the_likeliest_only_where_asked_for(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    bare = await both(client, target, max_tokens=4, logprobs=True)
    assert [entry.top_logprobs for entry in bare.logprobs] == [[]] * 4
    none = await both(client, target, max_tokens=4)
    assert none.logprobs == []
    most = await plain(client, target, max_tokens=2, logprobs=True, top_logprobs=20)
    assert [len(entry.top_logprobs) for entry in most.logprobs] == [20, 20]


async def test_asking_does_not_change_the_answer(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    free = await plain(client, target, max_tokens=20)
    assert (await plain(client, target, max_tokens=20, logprobs=True)).text == free.text


@pytest.mark.parametrize("wanted", [0, 3])
async def test_those_of_completions(
    client: openai.AsyncOpenAI, target: Target, wanted: int
) -> None:
    target.need(Can.COMPLETIONS)
    answer = await client.completions.create(
        model=target.model, prompt=QUESTION, temperature=0, max_tokens=8, logprobs=wanted
    )
    choice = answer.choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.token_logprobs is not None
    assert found.top_logprobs is not None
    assert found.text_offset is not None
    assert "".join(found.tokens) == choice.text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    assert all(value <= 0 for value in found.token_logprobs)
    for token, top in zip(found.tokens, found.top_logprobs, strict=True):
        assert len(top) <= wanted
        if wanted:
            assert max(top, key=lambda name: top[name]) == token
