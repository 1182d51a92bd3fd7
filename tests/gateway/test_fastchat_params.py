"""What becomes of a request on its way to a FastChat worker, and what is refused."""

from typing import Any

import pytest

from dev_opsgpt.gateway import fastchat_params as params
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest

TEMPLATE = Conversation(
    "x", system_message="default", roles=("U", "A"), stop_str="END", stop_token_ids=[2]
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def chat(**fields: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "hi"}]
    return ChatRequest.model_validate({"model": "m", "messages": messages} | fields)


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": "hi"} | fields)


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"1": 1.0}},
        {"seed": 0},
        {"min_p": 0.1},
        {"modalities": ["text", "audio"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_fastchat_has_no_word_for_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        params.check_chat(chat(**fields))
    assert (caught.value.status, caught.value.param) == (400, next(iter(fields)))


def test_what_asks_for_nothing_passes() -> None:
    params.check_chat(
        chat(tools=[TOOL], tool_choice="none", response_format={"type": "text"}, logit_bias={}, n=2)
    )
    params.check_completion(completion(best_of=2, n=2, echo=True))
    params.check_embedding(EmbeddingRequest(model="m", input="a"))


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "s"},
        {"best_of": 2},
        {"echo": True, "logprobs": 1},
        {"max_tokens": 0},
        {"prompt": [1, 2]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_completions_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        params.check_completion(completion(**fields))
    assert caught.value.param == next(iter(fields))


@pytest.mark.parametrize("fields", [{"input": [1, 2]}, {"input": "a", "dimensions": 2}])
def test_embeddings_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        params.check_embedding(EmbeddingRequest.model_validate({"model": "m"} | fields))


def filled(*messages: dict[str, Any], multimodal: bool = False) -> tuple[Conversation, list[str]]:
    asked = chat(messages=list(messages)).messages
    return params.conversation(TEMPLATE, asked, multimodal=multimodal)


def test_messages_fill_the_template() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    conv, images = filled(
        {"role": "system", "content": "one"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "c"},
        {"role": "developer", "content": "two"},
    )
    assert conv.system_message == "one\n\ntwo"
    assert conv.messages == [("U", "a\nb"), ("A", "c"), ("A", None)]
    assert images == []
    assert TEMPLATE.messages == []


def test_the_templates_own_system_message_stands_in() -> None:
    assert filled({"role": "user", "content": "a"})[0].system_message == "default"
    empty = {"role": "system", "content": ""}
    assert filled(empty, {"role": "user", "content": "a"})[0].system_message == ""


def test_images_are_for_models_that_see() -> None:
    message = {"role": "user", "content": [IMAGE, {"type": "text", "text": "what?"}]}
    conv, images = filled(message, multimodal=True)
    assert conv.messages[0] == ("U", "$$<image>$$what?")
    assert images == [IMAGE["image_url"]["url"]]  # type: ignore[index]
    with pytest.raises(ApiError) as caught:
        filled(message)
    assert caught.value.param == "messages.0.content.0"
    far = {"type": "image_url", "image_url": {"url": "/etc/passwd.png"}}
    with pytest.raises(ApiError):
        filled({"role": "user", "content": [far]}, multimodal=True)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "messages.0.role"),
        ({"role": "assistant", "tool_calls": [CALL]}, "messages.0.tool_calls"),
    ],
)
def test_turns_that_fastchat_does_not_know(message: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        filled(message)
    assert caught.value.param == param


def test_all_parameters_are_given() -> None:
    assert params.chat_params(chat(stop="x"), TEMPLATE, "m", "p", []) == {
        "model": "m",
        "prompt": "p",
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": -1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "echo": False,
        "logprobs": None,
        "stop": ["x", "END"],
        "stop_token_ids": [2],
    }
    asked = chat(temperature=0.0, logprobs=True, repetition_penalty=1.1)
    found = params.chat_params(asked, TEMPLATE, "m", "p", ["data:"])
    assert (found["temperature"], found["logprobs"], found["images"]) == (0.0, 1, ["data:"])
    assert found["repetition_penalty"] == 1.1
