"""The targets of the suite, and clients for them.

A new engine or provider is one more entry of ``TARGETS``. A server that runs anyway is tested with
``OPSGPT_CONFORMANCE='{"base_url": "http://host/v1", "model": "m", "can": ["seed"]}'``.
"""

import json
import os
import ssl
from collections.abc import AsyncIterator, Callable

import httpx
import openai
import pytest

from tests.conformance.readers import ENCODERS, RERANKERS, reader
from tests.conformance.service import (
    MAX_BODY,
    MODEL,
    PROVIDED,
    TRANSFORMERS,
    Service,
    shared_service,
)
from tests.conformance.target import Can, Target


def _chatml(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def _local(service: Service, model: str, worker: str, *cannot: Can) -> Target:
    return Target(
        base_url=f"{service.gateway}/v1",
        model=model,
        key="EMPTY",
        can=frozenset(Can) - set(cannot),
        context=4096,
        end_tokens=(0, 2),
        render=_chatml,
        health=f"{worker}/health",
        max_body=MAX_BODY,
    )


def _llama_cpp(service: Service) -> Target:
    return _local(service, MODEL, service.worker, Can.STOP_TOKENS, Can.RERANK)


def _transformers(service: Service) -> Target:
    return _local(service, TRANSFORMERS, service.transformers, Can.RERANK)


def _provider(service: Service) -> Target:
    return Target(
        base_url=f"{service.gateway}/v1",
        model=PROVIDED,
        key="EMPTY",
        # A provider's tokens are its own: nobody here can count them.
        can=frozenset(Can) - {Can.TOKEN_CHECK, Can.STOP_TOKENS, Can.RERANK},
        context=4096,
        end_tokens=(0, 2),
        # That of the model behind it: hanging up on a provider must reach as far.
        health=f"{service.worker}/health",
        max_body=MAX_BODY,
    )


TARGETS: dict[str, Callable[[Service], Target]] = {
    "llama_cpp": _llama_cpp,
    "transformers": _transformers,
    "provider": _provider,
}
ELSEWHERE = "OPSGPT_CONFORMANCE"


def _elsewhere(described: str) -> Target:
    """A target described in JSON, with the fields of ``Target``."""
    found = {"key": "EMPTY", "can": [], "context": 4096} | json.loads(described)
    found["can"] = frozenset(Can(name) for name in found["can"])
    found["end_tokens"] = tuple(found.get("end_tokens", ()))
    return Target(**found)


# Modules whose tests concern models that read only, with those that they are run on besides.
READERS = {"test_embeddings": list(ENCODERS), "test_rerank": list(RERANKERS)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Says what the tests of a module are run on: a server elsewhere, or all of our targets."""
    if "target" not in metafunc.fixturenames:
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    names = [] if module == "test_rerank" else list(TARGETS)
    names += READERS.get(module, [])
    names = [ELSEWHERE] if ELSEWHERE in os.environ else names
    metafunc.parametrize("target", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """What is tested."""
    if request.param == ELSEWHERE:
        return _elsewhere(os.environ[ELSEWHERE])
    if request.param in TARGETS:
        return TARGETS[request.param](shared_service(request.config))
    return reader(request.config, request.param)


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """One for all clients: to load the certificates takes longer than most tests."""
    return ssl.create_default_context()


def _client(target: Target, tls: ssl.SSLContext, *, strict: bool) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=target.base_url,
        api_key=target.key,
        max_retries=0,
        timeout=60,
        http_client=openai.DefaultAsyncHttpxClient(verify=tls),
        _strict_response_validation=strict,
    )


@pytest.fixture
async def client(target: Target, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    """The openai client; it refuses answers that are not as OpenAI's models say."""
    async with _client(target, tls, strict=True) as found:
        yield found


@pytest.fixture
async def relaxed(target: Target, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    """The openai client as it is by default, for what OpenAI sends against its own document:
    ``finish_reason`` null in the chunks of completions, embeddings in base64."""
    async with _client(target, tls, strict=False) as found:
        yield found


@pytest.fixture
async def http(target: Target, tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the target's server."""
    headers = {"authorization": f"Bearer {target.key}"}
    async with httpx.AsyncClient(
        base_url=target.base_url, headers=headers, timeout=60, verify=tls
    ) as found:
        yield found
