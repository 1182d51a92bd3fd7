"""Text of every script: whole characters, however an answer is cut."""

import json

import openai
import pytest

from tests.conformance.ask import both, streamed
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
        cut = await both(client, target, question, max_tokens=limit)
        assert LOST not in cut.text
        assert whole.text.startswith(cut.text)


async def test_characters_of_many_bytes(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.JSON)
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": TEXT}}}
    whole = await streamed(client, target, response_format=given)
    assert json.loads(whole.text) == TEXT
    assert not any(LOST in piece for piece in whole.pieces)
    # Each of these limits falls somewhere else in a character of several tokens.
    for limit in range(1, min(whole.tokens, 30)):
        cut = await both(client, target, response_format=given, max_tokens=limit)
        assert cut.finish == "length"
        assert LOST not in cut.text
        assert whole.text.startswith(cut.text)


async def test_stop_strings_in_characters_of_many_bytes(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    target.need(Can.JSON)
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": TEXT}}}
    for stop in ("🌍", "é", "‍💻", "！"):
        cut = await both(client, target, response_format=given, stop=stop)
        assert cut.finish == "stop"
        assert LOST not in cut.text
        assert cut.text == json.dumps(TEXT, ensure_ascii=False).split(stop)[0]
