"""Text of every script: whole characters, however an answer is cut."""

import json

import openai
import pytest

from tests.conformance.ask import all_of, both, plain, streamed
from tests.conformance.target import Can, Target

LOST = "\ufffd"
TEXT = "你好🌍，naïve café 👩‍💻🏳️‍🌈！"


@pytest.mark.parametrize("question", ["你好！你叫什么名字？", "用中文回答：控制器是什么？"])
async def test_no_character_is_lost_at_any_limit(
    client: openai.AsyncOpenAI, target: Target, question: str
) -> None:
    whole = await streamed(client, target, question, max_tokens=20)
    assert not any(LOST in piece for piece in whole.pieces)
    for limit in range(1, 9):
        ask = plain if limit % 2 else streamed
        cut = await ask(client, target, question, max_tokens=limit)
        assert LOST not in cut.text
        assert whole.text.startswith(cut.text)


async def test_characters_of_many_bytes(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.JSON)
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": TEXT}}}
    whole = await streamed(client, target, response_format=given)
    assert json.loads(whole.text) == TEXT
    assert not any(LOST in piece for piece in whole.pieces)
    # Each of these limits falls somewhere else in a character of several tokens.
    fields = {"response_format": given}
    limits = range(1, min(whole.tokens, 30))
    asked = [(plain, streamed)[n % 2](client, target, max_tokens=n, **fields) for n in limits]
    for cut in await all_of(asked):
        assert cut.finish == "length"
        assert LOST not in cut.text
        assert whole.text.startswith(cut.text)


async def test_stop_strings_in_characters_of_many_bytes(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    target.need(Can.JSON)
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": TEXT}}}
    stops = ("🌍", "é", "‍💻", "！")
    fields = {"response_format": given}
    found = await all_of(both(client, target, stop=stop, **fields) for stop in stops)
    for stop, cut in zip(stops, found, strict=True):
        assert cut.finish == "stop"
        assert LOST not in cut.text
        assert cut.text == json.dumps(TEXT, ensure_ascii=False).split(stop)[0]
