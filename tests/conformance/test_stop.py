"""Stop strings: the text ends before the first of them, and not a letter of one is shown."""

import random
from typing import Any

import openai
import pytest

from tests.conformance.ask import QUESTION, both, plain, streamed
from tests.conformance.target import Can, Target

CUTS = 10


def _stops(text: str, seed: int) -> list[str]:
    """Pieces of the text that begin and end anywhere, in the middle of tokens too."""
    dice = random.Random(seed)
    found = []
    while len(found) < CUTS:
        start = dice.randrange(1, len(text) - 1)
        found.append(text[start : start + dice.randint(1, 7)])
    return found


@pytest.mark.parametrize("question", [QUESTION, "你好！你叫什么名字？"])
async def test_a_stop_string_is_never_shown(
    client: openai.AsyncOpenAI, target: Target, question: str
) -> None:
    whole = await plain(client, target, question, max_tokens=60)
    for place, stop in enumerate(_stops(whole.text, seed=len(question))):
        ask = streamed if place % 2 else plain
        answer = await ask(client, target, question, max_tokens=60, stop=stop)
        assert answer.text == whole.text[: whole.text.find(stop)]
        assert answer.finish == "stop"
        assert answer.tokens <= whole.tokens


async def test_the_first_of_several_ends_the_text(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    whole = await plain(client, target, max_tokens=60)
    stops = _stops(whole.text, seed=1)
    for start in range(0, CUTS, 3):
        some = stops[start : start + 3]
        # The one that is complete first; two that end together: the longer.
        end = min((whole.text.find(s) + len(s), whole.text.find(s)) for s in some)[1]
        answer = await both(client, target, max_tokens=60, stop=some)
        assert (answer.text, answer.finish) == (whole.text[:end], "stop")


async def test_what_only_begins_like_a_stop_string_is_shown(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    whole = await plain(client, target, max_tokens=20)
    near = [whole.text[-5:] + "§", whole.text[3:8] + "§", "§"]
    answer = await both(client, target, max_tokens=20, stop=near)
    assert (answer.text, answer.finish) == (whole.text, whole.finish)


async def test_a_stop_string_at_the_limit(client: openai.AsyncOpenAI, target: Target) -> None:
    whole = await plain(client, target, max_tokens=6)
    # The limit comes before the stop string is complete: what was held back is shown.
    longer = await plain(client, target, max_tokens=30)
    stop = longer.text[len(whole.text) - 2 : len(whole.text) + 3]
    assert longer.text.find(stop) == len(whole.text) - 2
    answer = await both(client, target, max_tokens=6, stop=stop)
    assert (answer.text, answer.finish) == (whole.text, "length")


async def test_stop_strings_of_completions(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.COMPLETIONS)
    given: dict[str, Any] = {
        "model": target.model,
        "prompt": "My name is",
        "temperature": 0,
        "max_tokens": 30,
    }
    if target.end_tokens:
        given["logit_bias"] = target.endless
    text = (await client.completions.create(**given)).choices[0].text
    for stop in _stops(text, seed=3)[:4]:
        choice = (await client.completions.create(**given, stop=stop)).choices[0]
        assert (choice.text, choice.finish_reason) == (text[: text.find(stop)], "stop")


async def test_stop_and_logprobs(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.LOGPROBS)
    whole = await plain(client, target, max_tokens=40)
    for stop in _stops(whole.text, seed=4)[:4]:
        answer = await streamed(client, target, max_tokens=40, stop=stop, logprobs=True)
        assert answer.text == whole.text[: whole.text.find(stop)]
        assert "".join(entry.token for entry in answer.logprobs) == answer.text


async def test_a_token_that_ends_the_answer(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.STOP_TOKENS)
    given = {"model": target.model, "prompt": "My name is", "temperature": 0, "max_tokens": 5}
    forced = given | {"logit_bias": {"65": 100}}
    shown = (await client.completions.create(**forced)).choices[0]
    assert (shown.text != "", shown.finish_reason) == (True, "length")
    ended = await client.completions.create(**forced, extra_body={"stop_token_ids": [65]})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
