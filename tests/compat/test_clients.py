"""Clients of FastChat's time over our parts: its own test client, and openai 0.28."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import ROOT
from tests.compat.fschat_env import Environment, Service, run_test_message, start_service
from tests.compat.our_parts import HERE, our_controller, our_worker
from tests.support.ports import free_ports

pytestmark = pytest.mark.slow

SECRET = "clients"

# The client test of the seeds, word for word but for the port.
SEED = """
import openai
# openai.api_key = "EMPTY" # Not support yet
openai.api_base = "http://127.0.0.1:{port}/v1"

model = "example"

# create a chat completion
completion = openai.ChatCompletion.create(
    model=model,
    messages=[{{"role": "user", "content": "Hello! What is your name? "}}],
    max_tokens=100,
)
# print the completion
print(completion.choices[0].message.content)
"""
MORE = """
import asyncio, json, openai
openai.api_base = "http://127.0.0.1:{port}/v1"
asked = dict(model="example", temperature=0, max_tokens=100)
asked["messages"] = [{{"role": "user", "content": "Hello! What is your name? "}}]
plain = openai.ChatCompletion.create(**asked).choices[0].message.content
chunks = list(openai.ChatCompletion.create(stream=True, **asked))
streamed = "".join(c.choices[0].delta.get("content") or "" for c in chunks)

async def later():
    stream = await openai.ChatCompletion.acreate(stream=True, **asked)
    return "".join([c.choices[0].delta.get("content") or "" async for c in stream])

vectors = openai.Embedding.create(model="tiny-chat", input=["a", "b"])["data"]
wrong = ""
try:
    openai.ChatCompletion.create(model="nobody", messages=asked["messages"])
except openai.InvalidRequestError as error:
    wrong = str(error)
print(json.dumps({{
    "plain": plain,
    "streamed": streamed,
    "later": asyncio.run(later()),
    "completion": openai.Completion.create(model="tiny-chat", prompt="My", max_tokens=4)
        .choices[0].text,
    "models": sorted(card["id"] for card in openai.Model.list()["data"]),
    "vectors": len(vectors),
    "wrong": wrong,
}}))
"""


@pytest.fixture(scope="module")
def service(logs: Path) -> Iterator[Service]:
    """Everything that `python start.py` starts, on free ports."""
    port, controller, example, first = free_ports(4)

    def command(url: str, port: int) -> list[str]:
        return [str(ROOT / "start.py")]

    environ = {
        "OPSGPT__FSCHAT_OPENAI_API__PORT": str(port),
        "OPSGPT__FSCHAT_CONTROLLER__PORT": str(controller),
        "OPSGPT__FSCHAT_MODEL_WORKERS__DEFAULT__PORT": str(first),
        "OPSGPT__FSCHAT_MODEL_WORKERS__EXAMPLE__PORT": str(example),
        "OPSGPT__ONLINE_LLM_MODEL__EXAMPLE__API_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPSGPT__LOG_DIR": str(logs),
        "OPSGPT__DATA_DIR": str(logs / "data"),
    }
    with start_service(
        HERE, logs, "service", command, "/health", environ=environ, port=port, listening="Try it:"
    ) as found:
        yield found


def run(environment: Environment, service: Service, program: str) -> str:
    port = service.url.rsplit(":", 1)[1]
    done = subprocess.run(
        [str(environment.python), "-c", program.format(port=port)],
        capture_output=True,
        # openai 0.28 refuses to ask anything without some key.
        env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": "EMPTY"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_seeds_client_test(openai_0_28: Environment, service: Service) -> None:
    assert "tiny-chat" in run(openai_0_28, service, SEED)


def test_openai_0_28(openai_0_28: Environment, service: Service) -> None:
    found = json.loads(run(openai_0_28, service, MORE))
    assert "tiny-chat" in found["plain"]
    assert found["plain"] == found["streamed"] == found["later"]
    assert found["completion"]
    assert found["models"] == ["example", "tiny-chat"]
    assert found["vectors"] == 2
    assert "nobody" in found["wrong"]


@pytest.mark.torch
def test_fschats_test_message(full: Environment, logs: Path) -> None:
    """It renders with a template of its own and asks the worker directly."""
    with (
        our_controller(logs, SECRET) as controller,
        our_worker(logs, SECRET, controller.url, "vicuna-7b-v1.5"),
    ):
        said = run_test_message(full, controller.url, "vicuna-7b-v1.5", "Hello", 16)
    question, _, answer = said.partition("ASSISTANT:")
    assert question.strip().endswith("USER: Hello")
    assert answer.strip()
