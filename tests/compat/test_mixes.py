"""The eight mixes of {gateway, controller, worker} x {ours, fschat}, as real processes.

Ours and fschat's worker serve the same embedded model, on llama.cpp and on torch. What passes in
which mix is the table in docs/fastchat.md.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.fschat_env import (
    Environment,
    Service,
    start_controller,
    start_gateway,
    start_model_worker,
    wait_for_model,
)
from tests.compat.our_parts import our_controller, our_gateway, our_worker

pytestmark = pytest.mark.slow

SECRET = "mixed cluster"
MODEL = "tiny-chat"
OURS, FSCHAT = "ours", "fschat"
MIXES = [
    # fschat's own model_worker needs torch, which takes long to install: `make test-compat`.
    pytest.param((g, c, w), marks=[pytest.mark.torch] if w == FSCHAT else [], id=f"{g}-{c}-{w}")
    for g in (OURS, FSCHAT)
    for c in (OURS, FSCHAT)
    for w in (OURS, FSCHAT)
]


def with_secret(url: str) -> str:
    """An address as FastChat's parts are given it, for them to show the secret."""
    return url.replace("http://", f"http://fschat:{SECRET.replace(' ', '%20')}@")


class Cluster:
    """Starts parts when they are first asked for, each once."""

    def __init__(
        self, light: Environment, full: Callable[[], Environment], model: Path, logs: Path
    ) -> None:
        self._light, self._full, self._model, self._logs = light, full, model, logs
        self._stack = ExitStack()
        self._running: dict[tuple[str, ...], Service] = {}

    def _once(self, key: tuple[str, ...], start: Callable[[], Service]) -> Service:
        if key not in self._running:
            self._running[key] = self._stack.enter_context(start())
        return self._running[key]

    def controller(self, kind: str, worker: str) -> Service:
        def start() -> Service:
            if kind == OURS:
                return our_controller(self._logs, SECRET)
            return start_controller(self._light, self._logs)

        return self._once((kind, worker), start)

    def worker(self, controller: str, kind: str) -> Service:
        url = self.controller(controller, kind).url

        def start() -> Service:
            if kind == OURS:
                return our_worker(self._logs, SECRET, url, MODEL)
            known = with_secret(url) if controller == OURS else url
            return start_model_worker(
                self._full(), self._logs, known, self._model, [MODEL], options=["--seed", "0"]
            )

        return self._once((controller, kind, "worker"), start)

    def gateway(self, kind: str, controller: str, worker: str) -> Service:
        self.worker(controller, worker)
        url = self.controller(controller, worker).url
        wait_for_model(url, MODEL)

        def start() -> Service:
            if kind == OURS:
                return our_gateway(self._logs, SECRET, url)
            return start_gateway(
                self._light, self._logs, with_secret(url) if controller == OURS else url
            )

        return self._once((kind, controller, worker, "gateway"), start)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def cluster(
    light: Environment, tiny_chat: Path, logs: Path, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    def full() -> Environment:
        found: Environment = request.getfixturevalue("full")
        return found

    found = Cluster(light, full, tiny_chat, logs)
    yield found
    found.close()


class Mix:
    """One mix, seen by a client."""

    def __init__(self, parts: tuple[str, str, str], client: httpx.Client) -> None:
        self.gateway, self.controller, self.worker = parts
        self._client = client

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def ask(self, path: str, **body: Any) -> Any:
        answer = self._client.post(path, json={"model": MODEL} | body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fails(self, path: str, **body: Any) -> httpx.Response:
        return self._client.post(path, json={"model": MODEL} | body)

    def stream(self, path: str, **body: Any) -> list[Any]:
        body = {"model": MODEL, "stream": True} | body
        with self._client.stream("POST", path, json=body) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert lines[-1] == "data: [DONE]", lines[-3:]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture(params=MIXES)
def mix(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Mix]:
    gateway = cluster.gateway(*request.param)
    # fschat drops the connection after an error that it did not expect.
    fresh = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False, limits=fresh) as client:
        if request.param[0] == OURS:
            wait_until_served(client)
        yield Mix(request.param, client)


def wait_until_served(client: httpx.Client) -> None:
    """Our gateway hears of a worker a moment after the controller does."""
    deadline = time.monotonic() + 60
    while not client.get("/health").json()["models"].get(MODEL):
        assert time.monotonic() < deadline
        time.sleep(0.05)


NAME = [{"role": "user", "content": "Hello! What is your name?"}]
STORY = [{"role": "user", "content": "Tell me a long story."}]
SHORT = {"temperature": 0, "max_tokens": 40}


def test_models(mix: Mix) -> None:
    assert [card["id"] for card in mix.get("/v1/models")["data"]] == [MODEL]


def test_chat(mix: Mix) -> None:
    answer = mix.ask("/v1/chat/completions", messages=NAME, **SHORT)
    text = answer["choices"][0]["message"]["content"]
    assert MODEL in text
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > 5
    assert answer["usage"]["completion_tokens"] > 5
    chunks = mix.stream("/v1/chat/completions", messages=NAME, **SHORT)
    deltas = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "".join(deltas) == text
    # A long one comes in pieces. How many is up to the machine: our worker sends at once what so
    # small a model has made since the last piece, so a few answers are looked at.
    pieces = []
    while max(pieces, default=0) <= 2:
        assert len(pieces) < 20, pieces
        chunks = mix.stream("/v1/chat/completions", messages=STORY, temperature=0, max_tokens=400)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        deltas = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
        pieces.append(sum(1 for delta in deltas if delta))


def test_messages_keep_their_shape(mix: Mix) -> None:
    """A system message and earlier turns reach the model: the prompt grows by them."""
    short = [{"role": "user", "content": "What is your name?"}]
    long = [
        {"role": "system", "content": "You are kind. {braces} are kept."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello: how are you?"},
        *short,
    ]
    counts = [
        mix.ask("/v1/chat/completions", messages=messages, **SHORT)["usage"]["prompt_tokens"]
        for messages in (short, long)
    ]
    assert counts[1] > counts[0] + 10


def test_content_in_parts(mix: Mix) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "your name?"}]
    messages = [{"role": "user", "content": parts}]
    answer = mix.fails("/v1/chat/completions", messages=messages, **SHORT)
    if mix.gateway == mix.worker == FSCHAT:
        # Its gateway can render parts in one style only, and its worker's template has another.
        assert answer.status_code == 500
        return
    assert answer.status_code == 200, answer.text
    assert MODEL in answer.json()["choices"][0]["message"]["content"]


def test_completions(mix: Mix) -> None:
    prompt = "The name of this model is"
    answer = mix.ask("/v1/completions", prompt=prompt, temperature=0, max_tokens=12)
    text = answer["choices"][0]["text"]
    assert text
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    chunks = mix.stream("/v1/completions", prompt=prompt, temperature=0, max_tokens=12)
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == text


def test_stop(mix: Mix) -> None:
    answer = mix.ask("/v1/chat/completions", messages=NAME, stop=["chat"], **SHORT)
    assert "chat" not in answer["choices"][0]["message"]["content"]


def test_embeddings(mix: Mix) -> None:
    answer = mix.ask("/v1/embeddings", input=["one", "two", "three", "four", "five"])
    vectors = [item["embedding"] for item in answer["data"]]
    assert len(vectors) == 5
    assert {len(vector) for vector in vectors} == {len(vectors[0])}
    assert all(abs(sum(x * x for x in vector) - 1) < 0.01 for vector in vectors)
    assert answer["usage"]["prompt_tokens"] >= 5


def test_token_check(mix: Mix) -> None:
    asked = [
        {"model": MODEL, "prompt": "one two three", "max_tokens": tokens} for tokens in (1, 10**6)
    ]
    small, large = mix.ask("/api/v1/token_check", prompts=asked)["prompts"]
    assert (small["fits"], large["fits"]) == (True, False)
    assert small["tokenCount"] >= 3
    assert small["contextLength"] >= 1024


def test_a_prompt_that_is_too_long(mix: Mix) -> None:
    messages = [{"role": "user", "content": "word " * 20_000}]
    answer = mix.fails("/v1/chat/completions", messages=messages)
    assert answer.status_code == 400
    code = answer.json().get("code") or answer.json()["error"]["code"]
    assert code in (40303, "context_length_exceeded")
