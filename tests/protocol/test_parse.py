"""Request bodies: what is accepted, and the field that each mistake names."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.protocol.errors import ApiError, InvalidRequest, OutOfRange
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.parse import parse

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    return parse(ChatRequest, json.dumps(body).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1},
        {"top_k": -1},
        {"stop": "a"},
        {"stop": ["a", "b"]},
        {"stop": None},
        {"logit_bias": {"12": -100}},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"tools": [TOOL], "tool_choice": allowed("auto", "add")},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"seed": -5, "user": "u", "context": {"appId": "a"}, "unknown": [1, {}]},
        {"messages": [{"role": "developer", "content": "be brief"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": [{"role": "tool", "content": "4", "tool_call_id": "c"}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "add", "arguments": "{}"},
                        }
                    ],
                }
            ]
        },
    ],
)
def test_accepted(fields: dict[str, Any]) -> None:
    assert chat(**fields).model == "m"


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"temperature": 2.1}, "temperature", OutOfRange),
        ({"temperature": -0.1}, "temperature", OutOfRange),
        ({"temperature": "1"}, "temperature", InvalidRequest),
        ({"temperature": float("nan")}, "temperature", InvalidRequest),
        ({"top_p": 1.1}, "top_p", OutOfRange),
        ({"min_p": -1}, "min_p", OutOfRange),
        ({"presence_penalty": 3}, "presence_penalty", OutOfRange),
        ({"repetition_penalty": 0}, "repetition_penalty", OutOfRange),
        ({"n": 0}, "n", OutOfRange),
        ({"n": True}, "n", InvalidRequest),
        ({"n": 1.5}, "n", InvalidRequest),
        ({"max_tokens": 0}, "max_tokens", OutOfRange),
        ({"max_completion_tokens": -1}, "max_completion_tokens", OutOfRange),
        ({"seed": 2**64}, "seed", OutOfRange),
        ({"stop": 5}, "stop", InvalidRequest),
        ({"stop": [""]}, "stop.0", InvalidRequest),
        ({"stop": ["a"] * 17}, "stop", InvalidRequest),
        ({"logit_bias": {"a": 1}}, "logit_bias.a", InvalidRequest),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", OutOfRange),
        ({"top_logprobs": 2}, "top_logprobs", InvalidRequest),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", OutOfRange),
        ({"stream": "yes"}, "stream", InvalidRequest),
        ({"model": ""}, "model", InvalidRequest),
        ({"model": None}, "model", InvalidRequest),
        ({"messages": []}, "messages", InvalidRequest),
        ({"messages": {}}, "messages", InvalidRequest),
        ({"messages": [5]}, "messages.0", InvalidRequest),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", InvalidRequest),
        ({"messages": [{"content": "x"}]}, "messages.0.role", InvalidRequest),
        ({"messages": [{"role": "user"}]}, "messages.0.content", InvalidRequest),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
            InvalidRequest,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "scent"}]}]},
            "messages.0.content.0",
            InvalidRequest,
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.tool_call_id",
            InvalidRequest,
        ),
        ({"tool_choice": "required"}, "tool_choice", InvalidRequest),
        ({"tool_choice": "perhaps", "tools": [TOOL]}, "tool_choice", InvalidRequest),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}},
            "tool_choice",
            InvalidRequest,
        ),
        ({"tool_choice": {"type": "custom"}, "tools": [TOOL]}, "tool_choice", InvalidRequest),
        ({"tool_choice": {}, "tools": [TOOL]}, "tool_choice", InvalidRequest),
        ({"tools": [TOOL], "tool_choice": allowed("auto", "sub")}, "tool_choice", InvalidRequest),
        ({"tool_choice": allowed("auto", "add")}, "tool_choice", InvalidRequest),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function"}},
            "tool_choice.function",
            InvalidRequest,
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}},
            "tool_choice.allowed_tools",
            InvalidRequest,
        ),
        (
            {"tools": [TOOL], "tool_choice": allowed("never", "add")},
            "tool_choice.allowed_tools.mode",
            InvalidRequest,
        ),
        (
            {"tools": [TOOL], "tool_choice": allowed("auto")},
            "tool_choice.allowed_tools.tools",
            InvalidRequest,
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools.0.function.name",
            InvalidRequest,
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", ApiError),
        ({"response_format": {"type": "xml"}}, "response_format.type", InvalidRequest),
    ],
)
def test_refused(fields: dict[str, Any], param: str, kind: type[ApiError]) -> None:
    with pytest.raises(kind) as caught:
        chat(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400
    assert param in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"model": "\xff"}'])
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ChatRequest, body)
    assert (caught.value.code, caught.value.param) == ("invalid_json", None)


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"x"'])
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        parse(ChatRequest, body)


def test_a_long_value_is_not_thrown_back_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(model=5, temperature="x" * 10_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_prompts(prompt: Any, prompts: Any) -> None:
    body = json.dumps({"model": "m", "prompt": prompt, "input": prompt}).encode()
    assert parse(CompletionRequest, body).prompts == prompts
    assert parse(EmbeddingRequest, body).inputs == prompts


@pytest.mark.parametrize("prompt", [[], [[]], [1.5], {"a": 1}, [[1], "a"], 5])
def test_bad_prompts_name_the_field(prompt: Any) -> None:
    body = json.dumps({"model": "m", "prompt": prompt, "input": prompt}).encode()
    for model, name in ((CompletionRequest, "prompt"), (EmbeddingRequest, "input")):
        with pytest.raises(InvalidRequest) as caught:
            parse(model, body)
        assert caught.value.param is not None
        assert caught.value.param.split(".")[0] == name


def test_prompts_times_answers_are_bounded() -> None:
    for prompt, n in ((["a"] * 9, 128), (["a"] * 1025, 1)):
        body = json.dumps({"model": "m", "prompt": prompt, "n": n}).encode()
        with pytest.raises(InvalidRequest, match="1024") as caught:
            parse(CompletionRequest, body)
        assert caught.value.param == "prompt"
    body = json.dumps({"model": "m", "prompt": ["a"] * 8, "n": 128}).encode()
    assert len(parse(CompletionRequest, body).prompts) == 8


@pytest.mark.parametrize("one", ["x", [1, 2]])
def test_inputs_are_bounded(one: Any) -> None:
    for count in (2048, 2049):
        body = json.dumps({"model": "m", "input": [one] * count}).encode()
        if count == 2048:
            assert len(parse(EmbeddingRequest, body).inputs) == count
        else:
            with pytest.raises(InvalidRequest, match="more than 2048") as error:
                parse(EmbeddingRequest, body)
            assert error.value.param == "input"


def test_derived_values() -> None:
    request = chat(max_tokens=5, max_completion_tokens=7, stop="x", n=3)
    assert (request.limit, request.stops, request.choices) == (7, ["x"], 3)
    assert chat().limit is None
    forced = {"type": "function", "function": {"name": "add"}}
    assert chat(tools=[TOOL], tool_choice=forced).forced_tool == "add"
    assert chat(tools=[TOOL], tool_choice="required").must_call
    assert not chat(tools=[TOOL], tool_choice="auto").must_call


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools(mode: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    request = chat(tools=tools, tool_choice=allowed(mode, "c", "a"))
    assert [tool.function.name for tool in request.tools or []] == ["a", "c"]
    assert request.tool_choice == mode
    assert request.must_call is (mode == "required")


def test_the_text_of_a_message() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(messages=[{"role": "user", "content": parts}])
    assert request.messages[0].text() == "a\nb"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(ChatRequest.model_fields)), JSON)
def test_any_value_in_any_field_is_taken_or_refused(name: str, value: Any) -> None:
    try:
        chat(**{name: value})
    except ApiError as error:
        assert error.status == 400
        assert error.message


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(ChatRequest, body)


def test_words_of_the_library_are_not_told() -> None:
    with pytest.raises(InvalidRequest, match=r"should have at least 1 item, not 0"):
        chat(messages=[])
    with pytest.raises(InvalidRequest, match=r"The request body is empty\."):
        parse(ChatRequest, b" ")
