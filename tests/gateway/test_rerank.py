"""Rerank through the gateway: each of its paths, as hot as the others, within the keys' limits."""

from typing import Any

import cohere
import httpx
import pytest

from dev_opsgpt.gateway.hot_path import PATHS, worker_path
from dev_opsgpt.gateway.openapi import _ROUTES
from dev_opsgpt.routing.capabilities import needs_of
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack, running
from tests.support.upstream import Call, Upstream, attached

BODY: dict[str, Any] = {
    "model": "echo",
    "query": "a",
    "documents": ["b", "a a", "a"],
    "top_n": 2,
    # Embeddings and rerank come in one piece, whatever is said here.
    "stream": True,
}


async def metric(stack: Stack, series: str) -> float | None:
    """The value of a series on the page for Prometheus."""
    headers = {"authorization": f"Bearer {SECRET}"}
    page = (await stack.client.get("/metrics", headers=headers)).text
    found = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("opsgpt"))
    return float(found[series]) if series in found else None


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_each_path(path: str) -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        answer = await stack.client.post(path, json=BODY)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"]
        assert [result["index"] for result in answer.json()["results"]] == [1, 2]
        series = f'opsgpt_requests_total{{error="",model="echo",path="{path}",status="200"}}'
        assert await metric(stack, series) == 1
        wrong = await stack.client.post(path, json=BODY | {"top_n": -1})
        assert wrong.status_code == 400
        assert wrong.json()["error"]["param"] == "top_n"
        assert (await stack.client.get(path)).status_code == 405


def test_every_hot_path_is_described_and_known_to_workers() -> None:
    assert set(PATHS) <= {path for path, _, _ in _ROUTES}
    assert {worker_path(path) for path in PATHS} == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
    }
    assert worker_path("/chat/completions") == "/v1/chat/completions"


async def test_a_key_is_needed_and_counts() -> None:
    async with running({"echo": [ScriptedEngine()]}, api_keys=("sk-test",)) as stack:
        assert (await stack.client.post("/v1/rerank", json=BODY)).status_code == 401
        headers = {"authorization": "Bearer sk-test"}
        answer = await stack.client.post("/v1/rerank", json=BODY, headers=headers)
        assert answer.status_code == 200


def test_a_rerank_is_estimated_by_all_of_its_texts() -> None:
    body = b'{"model":"m","query":"' + b"q" * 40 + b'","documents":["' + b"d" * 400 + b'"]}'
    assert needs_of(body).prompt_tokens == 110


async def test_an_attached_server_that_tells_one_number_only() -> None:
    async def answer(call: Call) -> None:
        assert b"POST /v1/rerank " in call.head
        await call.json({"results": [], "usage": {"total_tokens": 11}})

    async with attached([Upstream(answer)]) as stack:
        assert (await stack.client.post("/rerank", json=BODY)).status_code == 200
        assert await metric(stack, 'opsgpt_prompt_tokens_total{model="echo"}') == 11


async def test_cohere_s_own_clients() -> None:
    async with running({"echo": [ScriptedEngine()]}, api_keys=("sk-test",)) as stack:
        known = {"api_key": "sk-test", "base_url": stack.url}
        asked: dict[str, Any] = {"model": "echo", "query": "a", "documents": ["b", "a a", "a"]}
        async with httpx.AsyncClient() as http:
            v2 = await cohere.AsyncClientV2(**known, httpx_client=http).rerank(**asked, top_n=2)
            v1 = await cohere.AsyncClient(**known, httpx_client=http).rerank(
                **asked, return_documents=True
            )
        assert [(one.index, one.relevance_score) for one in v2.results] == [(1, 2.0), (2, 1.0)]
        assert v2.meta is not None
        assert v2.meta.tokens is not None
        assert v2.meta.tokens.input_tokens == 9
        assert [one.document.text for one in v1.results if one.document] == ["a a", "a", "b"]
