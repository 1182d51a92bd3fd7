"""FastChat's parameters as OpenAI's requests."""

from typing import Any

import pytest

from dev_opsgpt.protocol.errors import InvalidRequest, OutOfRange, Unsupported
from dev_opsgpt.protocol.fastchat import GenerateRequest
from dev_opsgpt.protocol.openai import Message
from dev_opsgpt.worker.fastchat_requests import chat_request, completion_request

MESSAGES = [Message(role="user", content="hello")]


def test_defaults_are_fastchats() -> None:
    absent = completion_request(GenerateRequest(prompt="p"), "m")
    null = GenerateRequest(prompt="p", temperature=None, top_p=None, max_new_tokens=None)
    assert completion_request(null, "m") == absent
    assert (absent.temperature, absent.top_p, absent.top_k, absent.max_tokens) == (1, 1, -1, 256)


def test_a_chat_keeps_its_parameters() -> None:
    asked = GenerateRequest(
        prompt="", temperature=0.5, top_k=3, stop=["", "x"], logprobs=2, max_new_tokens=9
    )
    found = chat_request(asked, "m", MESSAGES)
    assert found.messages == MESSAGES
    assert (found.temperature, found.top_k, found.stops) == (0.5, 3, ["x"])
    assert (found.logprobs, found.top_logprobs, found.limit) == (True, 2, 9)


def test_stop_token_ids_of_a_clients_template_do_no_harm() -> None:
    asked = GenerateRequest(prompt="p", stop_token_ids=[2, 9], stop="x")
    found = completion_request(asked, "m")
    assert (found.stops, found.stop_token_ids) == (["x"], None)

    def ends(tokens: list[int]) -> list[int]:
        return [token for token in tokens if token < 5]

    assert completion_request(asked, "m", ends).stop_token_ids == [2]
    assert chat_request(asked, "m", MESSAGES, ends).stop_token_ids == [2]
    unknown = GenerateRequest(prompt="p", stop_token_ids=[9])
    assert completion_request(unknown, "m", ends).stop_token_ids is None


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"temperature": 3.0}, OutOfRange, "temperature"),
        ({"max_new_tokens": -1}, OutOfRange, "max_new_tokens"),
        ({"use_beam_search": True}, Unsupported, "use_beam_search"),
        ({"best_of": 2}, Unsupported, "use_beam_search"),
        ({"images": ["data:"]}, Unsupported, "images"),
        ({"logprobs": 6}, OutOfRange, "logprobs"),
    ],
)
def test_what_cannot_be_is_named(
    fields: dict[str, Any], kind: type[InvalidRequest], param: str
) -> None:
    with pytest.raises(kind) as caught:
        completion_request(GenerateRequest(prompt="p", **fields), "m")
    assert caught.value.param == param


def test_a_chat_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_request(GenerateRequest(prompt=""), "m", [])
    assert caught.value.param == "messages"
