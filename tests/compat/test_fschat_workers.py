"""Workers made for FastChat, under our controller and behind our gateway."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compat.fschat_env import (
    Environment,
    FschatError,
    Service,
    ask,
    start_controller,
    start_service,
    wait_for_model,
)
from tests.compat.our_parts import our_controller, our_gateway, our_worker

pytestmark = pytest.mark.slow

SECRET = "swordfish"
SCRIPT = Path(__file__).with_name("echo_worker.py")


def echo_worker(light: Environment, logs: Path, controller: str) -> Service:
    def command(url: str, port: int) -> list[str]:
        where = ["--port", str(port), "--worker-address", url]
        return [str(SCRIPT), *where, "--controller-address", controller]

    environ = {"FASTCHAT_WORKER_HEART_BEAT_INTERVAL": "1"}
    return start_service(
        light, logs, "echo", command, "/worker_get_status", method="POST", environ=environ
    )


def knowing(url: str, password: str = SECRET) -> str:
    return url.replace("http://", f"http://x:{password}@")


@contextmanager
def gateway_over(logs: Path, controller: str) -> Iterator[httpx.Client]:
    with (
        our_gateway(logs, SECRET, controller) as gateway,
        httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        deadline = time.monotonic() + 60
        while not client.get("/health").json()["models"].get("echo"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield client


def chat(client: httpx.Client, text: str, **fields: Any) -> httpx.Response:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": text}]
    body = {"model": "echo", "messages": messages} | fields
    return client.post("/v1/chat/completions", json=body)


def test_a_worker_of_ones_own(light: Environment, logs: Path) -> None:
    """It shows the secret as the password in the controller's address."""
    with (
        our_controller(logs, SECRET) as controller,
        echo_worker(light, logs, knowing(controller.url)),
        gateway_over(logs, controller.url) as client,
    ):
        answer = chat(client, "one two").json()
        assert answer["choices"][0]["message"]["content"] == "S[U]one two | [A] "
        assert answer["usage"]["completion_tokens"] == 4
        assert chat(client, "please fail now").status_code == 429
        assert chat(client, "word " * 200).json()["error"]["code"] == "context_length_exceeded"
        refused = chat(client, "one", tools=[{"type": "function", "function": {"name": "f"}}])
        assert refused.json()["error"]["param"] == "tools"
        embedded = client.post("/v1/embeddings", json={"model": "echo", "input": ["a", "b"]})
        assert [item["embedding"] for item in embedded.json()["data"]] == [[1.0, 0.0]] * 2


def test_a_worker_without_the_secret_is_refused(light: Environment, logs: Path) -> None:
    with our_controller(logs, SECRET) as controller:
        for address in (controller.url, knowing(controller.url, "guess")):
            with pytest.raises(FschatError):
                echo_worker(light, logs, address).stop()
        assert ask(f"{controller.url}/list_models")["models"] == []


def test_an_allowed_address_needs_no_secret(light: Environment, logs: Path) -> None:
    with (
        our_controller(logs, SECRET, allow=["http://127.0.0.1:*"]) as controller,
        echo_worker(light, logs, controller.url),
    ):
        wait_for_model(controller.url, "echo")


def test_a_worker_outlives_its_controller(light: Environment, logs: Path) -> None:
    """A controller that comes back is told again; fschat's worker tries every 5 s."""
    with our_controller(logs, SECRET) as first:
        worker = echo_worker(light, logs, knowing(first.url))
        with worker:
            wait_for_model(first.url, "echo")
            first.stop()
            time.sleep(1.5)
            port = int(first.url.rsplit(":", 1)[1])
            with our_controller(logs, SECRET, port=port) as second:
                wait_for_model(second.url, "echo", 60)
                assert worker.running()


def test_a_replica_that_dies_costs_no_request(light: Environment, logs: Path) -> None:
    """Under fschat's controller, which goes on giving out the dead one for a minute or more."""
    with (
        start_controller(light, logs) as controller,
        echo_worker(light, logs, controller.url) as first,
        echo_worker(light, logs, controller.url),
        gateway_over(logs, controller.url) as client,
    ):
        wait_for_replicas(client, 2)
        first.kill()
        answers = [chat(client, "still here").status_code for _ in range(12)]
        assert answers == [200] * 12
        wait_for_replicas(client, 1)


def wait_for_replicas(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + 60
    while client.get("/health").json()["models"].get("echo") != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_our_worker_keeps_openais_dialect(light: Environment, logs: Path) -> None:
    """Under fschat's controller too, as long as neither side has a secret to guard."""
    with (
        start_controller(light, logs) as controller,
        our_worker(logs, None, controller.url, "echo"),
        gateway_over(logs, controller.url) as client,
    ):
        schema = {"name": "x", "schema": {"type": "object"}}
        shape = {"type": "json_schema", "json_schema": schema}
        answer = chat(client, "Say something.", response_format=shape, seed=1, max_tokens=200)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"].startswith("{")
