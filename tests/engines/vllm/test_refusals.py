import json
from typing import Any

import pytest

from dev_opsgpt.engines.vllm.refusals import reshaped
from dev_opsgpt.protocol.errors import openai_body

CHAT = "/v1/chat/completions"


def seen(status: int, error: Any, path: str = CHAT) -> tuple[int, Any, Any]:
    found = reshaped(status, json.dumps({"error": error}).encode(), path)
    body = openai_body(found)["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return found.status, body["param"], body["code"]


@pytest.mark.parametrize(
    ("status", "told", "expected"),
    [
        (400, {"message": "m", "param": "body.seed", "code": 400}, (400, "seed", "invalid_value")),
        (
            400,
            {"message": "m", "param": "body.messages.0.ChatCompletionUserMessageParam.content"},
            (400, "messages.0.content", "invalid_value"),
        ),
        (
            400,
            {"message": "temperature must be ... (parameter=temperature, value=-1)"},
            (400, "temperature", "invalid_value"),
        ),
        (
            400,
            {"message": "This model's maximum context length is 4096 tokens."},
            (400, "messages", "context_length_exceeded"),
        ),
        (
            400,
            {
                "message": "max_tokens=9 cannot be greater than max_model_len=4",
                "param": "max_tokens",
            },
            (400, "max_tokens", "context_length_exceeded"),
        ),
        (400, {"message": "Token id 9 is out of vocabulary"}, (400, "messages", "invalid_value")),
        (
            400,
            {"message": "Failed to compile the grammar"},
            (400, "response_format", "invalid_value"),
        ),
        (404, {"message": "no such model", "code": 404}, (404, None, "model_not_found")),
        (405, "Method Not Allowed", (405, None, "method_not_allowed")),
        (401, "Unauthorized", (502, None, "upstream_failed")),
        (409, {"message": "m"}, (400, None, "invalid_value")),
        (500, {"message": "m", "code": 500}, (500, None, "internal_error")),
        (503, {"message": "m"}, (503, None, "unavailable")),
        (0, {"message": "m", "code": 400}, (400, None, "invalid_value")),
        (0, {"message": "m"}, (500, None, "internal_error")),
    ],
    ids=str,
)
def test_as_our_own_errors(status: int, told: Any, expected: tuple[int, Any, Any]) -> None:
    assert seen(status, told) == expected


def test_what_is_none_of_its_errors() -> None:
    for body in (b"", b"<html>", b"[]", b'{"detail": [{"loc": ["body"]}]}', b"\xff"):
        assert reshaped(500, body, CHAT).message
    assert len(reshaped(400, json.dumps({"error": "x" * 9999}).encode(), CHAT).message) <= 1000
