import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.capabilities import Card, Needs, card_of, fits, needs_of

USER = {"role": "user", "content": "Hello, who are you?!"}  # 20 bytes: 5 tokens
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
TOOL = {"type": "function", "function": {"name": "now"}}


def needs(**body: Any) -> Needs:
    """What is needed, less the prompt's share of the tokens: most tests tell it by the sum."""
    return replace(needs_of(json.dumps(body).encode()), prompt_tokens=0)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, Needs()),
        ({"messages": [USER]}, Needs(tokens=5)),
        ({"messages": [USER], "max_tokens": 100}, Needs(tokens=105)),
        ({"messages": [USER], "max_tokens": 9, "max_completion_tokens": 50}, Needs(tokens=55)),
        ({"messages": [USER], "max_tokens": -9}, Needs(tokens=5)),
        ({"messages": [USER], "max_tokens": True}, Needs(tokens=5)),
        ({"messages": [USER], "max_tokens": "9"}, Needs(tokens=5)),
        ({"messages": [USER], "tools": []}, Needs(tokens=5)),
        ({"messages": [USER], "tools": {"a": 1}}, Needs(tokens=5)),
        ({"messages": [USER], "tools": None, "functions": None}, Needs(tokens=5)),
        ({"messages": [USER], "response_format": {"type": "text"}}, Needs(tokens=5)),
        (
            {"messages": [USER], "response_format": {"type": "json_object"}},
            Needs(json_output=True, tokens=5),
        ),
        (
            {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {}}},
            Needs(json_output=True, tokens=5),
        ),
        ({"prompt": "x" * 40, "max_tokens": 16}, Needs(tokens=26)),
        ({"prompt": [1, 2, 3]}, Needs(tokens=3)),
        ({"prompt": [[1, 2], [3]]}, Needs(tokens=3)),
        ({"input": ["four", "four"]}, Needs(tokens=2)),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, Needs(vision=True)),
    ],
)
def test_needs_by_hand(body: dict[str, Any], wanted: Needs) -> None:
    assert needs(model="m", **body) == wanted


@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_and_their_descriptions(field: str) -> None:
    found = needs(messages=[USER], **{field: [TOOL]})
    assert found.tools
    assert found.tokens == (20 + len(json.dumps([TOOL]))) // 4


def test_an_image_is_seen_and_its_bytes_are_no_text() -> None:
    parts = [{"type": "text", "text": "What is it? "}, IMAGE]
    assert needs(messages=[{"role": "user", "content": parts}]) == Needs(vision=True, tokens=3)


def test_a_sound_is_no_text() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "wav"}}
    assert needs(messages=[{"role": "user", "content": [sound]}]) == Needs()


def test_earlier_calls_of_tools_are_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "a" * 40}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert needs(messages=[said]).tokens == 10


def test_bytes_of_the_text_not_of_its_escapes() -> None:
    text = "你好吗？"
    message = {"role": "user", "content": text}
    escaped = needs_of(json.dumps({"messages": [message]}).encode())
    plain = needs_of(json.dumps({"messages": [message]}, ensure_ascii=False).encode())
    assert escaped == plain == Needs(tokens=3, prompt_tokens=3)


def test_the_prompt_and_what_the_answer_may_add() -> None:
    found = needs_of(json.dumps({"messages": [USER], "max_tokens": 100}).encode())
    assert (found.prompt_tokens, found.tokens) == (5, 105)


def test_documents_are_counted_and_need_no_room() -> None:
    documents = ["x" * 40, {"text": "y" * 40, "id": 7}]
    body = {"model": "m", "query": "a" * 8, "documents": documents}
    assert needs_of(json.dumps(body).encode()) == Needs(prompt_tokens=22)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"text"',
        b"\xff\xfe",
        b'{"messages": "\xff"}',
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_request_needs_nothing(body: bytes) -> None:
    assert needs_of(body) == Needs()


def test_lone_surrogates_are_no_trouble() -> None:
    needs_of(b'{"messages": [{"content": "\\ud800"}], "max_tokens": 1e999}')


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "content", "text", "function", "image_url", "role"])
            | st.text(max_size=3),
            inner | st.sampled_from(["image_url", "text"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "messages",
        "prompt",
        "input",
        "tools",
        "functions",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
    ]
)


@given(body=st.dictionaries(FIELDS, JSON, max_size=6))
def test_odd_bodies_never_raise(body: dict[str, Any]) -> None:
    found = needs_of(json.dumps(body).encode())
    assert 0 <= found.prompt_tokens <= found.tokens
    assert found.tools == any(
        isinstance(body.get(name), list) and bool(body[name]) for name in ("tools", "functions")
    )


@given(body=st.binary())
def test_any_bytes_never_raise(body: bytes) -> None:
    needs_of(body)


MAYBE = st.none() | st.booleans()
CARDS = st.builds(Card, MAYBE, MAYBE, MAYBE, st.none() | st.integers(1, 100))
NEEDS = st.builds(Needs, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 120))


@given(card=CARDS, asked=NEEDS)
def test_false_only_where_it_is_known(card: Card, asked: Needs) -> None:
    known_not = [
        asked.tools and card.tools is False,
        asked.vision and card.vision is False,
        asked.json_output and card.json_output is False,
        card.context_length is not None and asked.tokens > card.context_length,
    ]
    assert fits(card, asked) == (not any(known_not))
    assert fits(Card(), asked)


@given(worker=CARDS, route=CARDS)
def test_the_worker_knows_better_than_the_configuration(worker: Card, route: Card) -> None:
    merged = card_of(worker, route)
    for name in ("tools", "vision", "json_output", "context_length"):
        said = getattr(worker, name)
        assert getattr(merged, name) == (getattr(route, name) if said is None else said)
