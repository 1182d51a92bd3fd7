"""Rerank: the same documents, best first, each with a score between 0 and 1."""

import asyncio
import itertools
from typing import Any

import httpx
import pytest

from tests.conformance.target import Can, Target

QUERY = "Who is alive?"
DOCUMENTS = ["The controller knows.", "hi", "你好，世界 😀", "x" * 40, 'a "quoted" \\ line\nbreak']


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.RERANK)


async def ask(http: httpx.AsyncClient, target: Target, **fields: Any) -> httpx.Response:
    body = {"model": target.model, "query": QUERY, "documents": DOCUMENTS} | fields
    return await http.post("/rerank", json=body)


async def rerank(http: httpx.AsyncClient, target: Target, **fields: Any) -> list[dict[str, Any]]:
    """The results, found to be in their order and in their range."""
    answer = await ask(http, target, **fields)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["model"] == target.model
    assert found["usage"]["total_tokens"] == found["meta"]["tokens"]["input_tokens"] > 0
    results: list[dict[str, Any]] = found["results"]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return results


def scores(results: list[dict[str, Any]]) -> list[float]:
    """The scores in the order of the documents."""
    return [one["relevance_score"] for one in sorted(results, key=lambda result: result["index"])]


async def test_all_come_back_best_first(http: httpx.AsyncClient, target: Target) -> None:
    results = await rerank(http, target)
    assert sorted(one["index"] for one in results) == list(range(len(DOCUMENTS)))
    assert all("document" not in one for one in results)


async def test_a_score_is_that_of_the_pair_alone(http: httpx.AsyncClient, target: Target) -> None:
    together = scores(await rerank(http, target))
    for text, score in zip(DOCUMENTS, together, strict=True):
        (alone,) = await rerank(http, target, documents=[text])
        assert alone["relevance_score"] == pytest.approx(score, abs=5e-3)


@pytest.mark.parametrize("count", [1, 2, 5, 99])
async def test_the_best_few(http: httpx.AsyncClient, target: Target, count: int) -> None:
    whole = await rerank(http, target)
    few = await rerank(http, target, top_n=count)
    assert [one["index"] for one in few] == [one["index"] for one in whole[:count]]


async def test_documents_come_back_as_they_were(http: httpx.AsyncClient, target: Target) -> None:
    given: list[Any] = [DOCUMENTS[0], *({"text": text} for text in DOCUMENTS[1:])]
    results = await rerank(http, target, documents=given, return_documents=True)
    for one in results:
        assert one["document"] == {"text": DOCUMENTS[one["index"]]}
    assert scores(results) == pytest.approx(scores(await rerank(http, target)), abs=5e-3)


async def test_equals_stay_in_their_order(http: httpx.AsyncClient, target: Target) -> None:
    results = await rerank(http, target, documents=["b", "a", "b", "a", "b"])
    found = scores(results)
    assert found[0] == pytest.approx(found[2], abs=1e-4)
    for one, other in itertools.pairwise(results):
        if one["relevance_score"] == other["relevance_score"]:
            assert one["index"] < other["index"]


async def test_a_long_document_is_cut(http: httpx.AsyncClient, target: Target) -> None:
    long = "y" * 5000
    both = scores(await rerank(http, target, documents=[long, "y" * target.context]))
    assert both[0] == pytest.approx(both[1], abs=5e-3)
    first, short = scores(
        await rerank(http, target, documents=["abcdef", "abc"], max_tokens_per_doc=3)
    )
    assert first == pytest.approx(short, abs=5e-3)


async def test_a_long_query_is_refused(http: httpx.AsyncClient, target: Target) -> None:
    answer = await ask(http, target, query="q" * target.context)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "query")


async def test_requests_at_once_are_as_alone(http: httpx.AsyncClient, target: Target) -> None:
    given = [[f"number {n}", "x" * (n + 1), DOCUMENTS[n % 5]] for n in range(12)]
    together = await asyncio.gather(*(rerank(http, target, documents=one) for one in given))
    for documents, results in zip(given[::4], together[::4], strict=True):
        alone = await rerank(http, target, documents=documents)
        assert scores(alone) == pytest.approx(scores(results), abs=5e-3)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_each_path(http: httpx.AsyncClient, target: Target, path: str) -> None:
    body = {"model": target.model, "query": QUERY, "documents": DOCUMENTS}
    answer = await http.post(f"{target.root}{path}", json=body)
    assert len(answer.json()["results"]) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a"] * 2049}, "documents"),
        ({"documents": ["a", ""]}, "documents.1"),
        ({"documents": [{"text": ""}]}, "documents.0"),
        ({"documents": [{"body": "a"}]}, "documents.0"),
        ({"documents": ["a", 3]}, "documents.1"),
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "2"}, "top_n"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"rank_fields": ["title", "text"]}, "rank_fields"),
        ({"max_chunks_per_doc": 2}, "max_chunks_per_doc"),
    ],
)
async def test_fields_that_are_refused(
    http: httpx.AsyncClient, target: Target, fields: dict[str, Any], param: str
) -> None:
    answer = await ask(http, target, **fields)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"] or "").startswith(param)


async def test_what_else_it_is_asked(http: httpx.AsyncClient, target: Target) -> None:
    answer = await http.post("/embeddings", json={"model": target.model, "input": "a"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"
    assert "/v1/rerank" in answer.json()["error"]["message"]
    missing = await ask(http, target, model="no-such-model")
    assert missing.status_code == 404
