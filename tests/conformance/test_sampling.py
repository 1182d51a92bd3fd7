"""How tokens are chosen: temperature, seed, the fields that narrow the choice, penalties."""

import openai
import pytest

from tests.conformance.ask import QUESTION, WILD, both, plain, streamed
from tests.conformance.target import Can, Target

QUESTIONS = [QUESTION, "What can you do?", "你好！你叫什么名字？", "Say 😀 and 🎉."]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_temperature_zero_is_deterministic(
    client: openai.AsyncOpenAI, target: Target, question: str
) -> None:
    first = await both(client, target, question, max_tokens=40)
    assert first.text
    again = await both(client, target, question, max_tokens=40)
    assert again.text == first.text


async def test_a_seed_fixes_the_answer(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.SEED)
    fields = {**WILD, "max_tokens": 16}
    answers = [await both(client, target, seed=seed, **fields) for seed in range(4)]
    assert len({answer.text for answer in answers}) == len(answers)
    again = [await plain(client, target, seed=seed, **fields) for seed in range(4)]
    assert [answer.text for answer in again] == [answer.text for answer in answers]


async def test_without_a_seed_answers_differ(client: openai.AsyncOpenAI, target: Target) -> None:
    texts = {(await plain(client, target, max_tokens=16, **WILD)).text for _ in range(3)}
    assert len(texts) > 1


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0}, {"min_p": 1}])
async def test_a_narrow_choice_is_the_greedy_one(
    client: openai.AsyncOpenAI, target: Target, narrow: dict[str, int]
) -> None:
    if "top_p" not in narrow:
        target.need(Can.TOP_K)
    greedy = await plain(client, target, max_tokens=16)
    for seed in range(3):
        fields = {**WILD, **narrow, "seed": seed, "max_tokens": 16}
        assert (await plain(client, target, **fields)).text == greedy.text


async def test_a_bias_of_100_forces_a_token(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.LOGIT_BIAS)
    one = await plain(client, target, logit_bias={"65": 100}, max_tokens=1)
    many = await both(client, target, logit_bias={"65": 100}, max_tokens=6, **{"top_p": 0.5})
    assert one.text
    assert many.text == one.text * 6


async def test_a_bias_of_minus_100_bans_a_token(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.LOGIT_BIAS)
    ended = await plain(client, target, max_tokens=400)
    assert ended.finish == "stop"
    limit = ended.tokens + 10
    endless = await plain(client, target, max_tokens=limit, logit_bias=target.endless)
    assert (endless.finish, endless.tokens) == ("length", limit)
    assert endless.text.startswith(ended.text)
    forced = dict.fromkeys(target.endless, 100)
    assert (await plain(client, target, max_tokens=5, logit_bias=forced)).text == ""


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 2}]
)
async def test_a_penalty_changes_what_is_said_again(
    client: openai.AsyncOpenAI, target: Target, penalty: dict[str, float]
) -> None:
    target.need(Can.LOGIT_BIAS)
    if "repetition_penalty" in penalty:
        target.need(Can.TOP_K)
    # Of these tokens alone something is said, over and over, unless a penalty bears upon it.
    fields = {"logit_bias": dict.fromkeys(map(str, range(64, 80)), 60), "max_tokens": 24}
    free = await plain(client, target, **fields)
    held = await both(client, target, **fields, **penalty)
    assert held.text != free.text
    off = {name: 1 if name == "repetition_penalty" else 0 for name in penalty}
    assert (await plain(client, target, **fields, **off)).text == free.text


async def test_everything_at_once_is_accepted(client: openai.AsyncOpenAI, target: Target) -> None:
    answer = await streamed(
        client,
        target,
        max_tokens=8,
        temperature=0.9,
        top_p=0.9,
        presence_penalty=-2,
        frequency_penalty=-0.5,
        seed=2**62,
        stop=["§", "¶"],
        user="somebody",
        n=1,
    )
    assert answer.finish in ("stop", "length")
