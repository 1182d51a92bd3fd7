"""curl, as in the README: plain, streamed, and what it shows of errors."""

import json
import shutil
import subprocess
from typing import Any

import pytest

CURL = ("curl", "-sS", "--max-time", "60", "--noproxy", "*", "-w", "\n%{http_code}")
QUESTION = "Hello! What is your name? "
NAME = "tiny-chat"
CHAT = {"model": "tiny-chat", "messages": [{"role": "user", "content": QUESTION}]}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*words: str, body: Any = None) -> tuple[int, str]:
    """The status and the body of an answer."""
    data = [] if body is None else ["-d", json.dumps(body), "-H", "Content-Type: application/json"]
    done = subprocess.run(
        [*CURL, *words, *data],
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def test_plain(base_url: str) -> None:
    status, text = curl(
        f"{base_url}/chat/completions", body=CHAT | {"max_tokens": 100, "temperature": 0}
    )
    assert status == 200
    assert NAME in json.loads(text)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("place", ["/v1/chat/completions", "/chat/completions"])
def test_streamed(base_url: str, place: str) -> None:
    url = base_url.removesuffix("/v1") + place
    status, text = curl(
        "-N", url, body=CHAT | {"max_tokens": 100, "temperature": 0, "stream": True}
    )
    assert status == 200
    events = text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert NAME in said
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_headers_of_a_stream(base_url: str) -> None:
    _, text = curl("-N", "-i", f"{base_url}/chat/completions", body=CHAT | {"stream": True})
    head = text.lower().split("\r\n\r\n")[0] if "\r\n\r\n" in text else text.lower()
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-cache" in head


def test_models_and_health(base_url: str) -> None:
    status, text = curl(f"{base_url}/models", "-H", "Authorization: Bearer anything")
    assert status == 200
    names = {"tiny-chat", "tiny-chat-hf", "example"}
    assert {model["id"] for model in json.loads(text)["data"]} == names
    status, text = curl(base_url.removesuffix("/v1") + "/health")
    assert (status, json.loads(text)["status"]) == (200, "ok")


def test_errors(base_url: str) -> None:
    status, text = curl(f"{base_url}/chat/completions", "-d", "{", "-X", "POST")
    assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_json")
    status, text = curl(f"{base_url}/chat/completions", body=CHAT | {"model": "nobody"})
    assert (status, json.loads(text)["error"]["param"]) == (404, "model")


def test_a_body_that_is_too_large(base_url: str) -> None:
    """curl asks first (Expect: 100-continue) and is still sending when the answer comes."""
    done = subprocess.run(
        [*CURL, "--data-binary", "@-", f"{base_url}/chat/completions"],
        input=b" " * 3_000_000,
        capture_output=True,
        check=True,
    )
    text, _, status = done.stdout.decode().rpartition("\n")
    assert (status, json.loads(text)["error"]["code"]) == ("413", "request_too_large")
