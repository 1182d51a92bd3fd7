"""Encoders and cross-encoders behind the gateway, asked by the clients that people use."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from dev_opsgpt.engines.hf.cross_encoder import CrossEncoderEngine
from dev_opsgpt.engines.hf.encoder import EncoderEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.protocol.openai import EmbeddingRequest
from tests.engines.hf.tiny_encoders import (
    CLS,
    POSITIONS,
    SEP,
    WIDTH,
    write_cross_encoder,
    write_encoder,
)
from tests.support.stack import Stack, running

TEXTS = ["The controller knows who is alive.", "hi", "你好，世界 😀"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return (
        write_encoder(tmp_path_factory.mktemp("e"), pooling={"pooling_mode_mean_tokens": True}),
        write_cross_encoder(tmp_path_factory.mktemp("c")),
    )


@pytest.fixture
async def vectors(folders: tuple[Path, Path]) -> EncoderEngine:
    return EncoderEngine(HfOptions(folders[0], threads=1))


@pytest.fixture
async def stack(vectors: EncoderEngine, folders: tuple[Path, Path]) -> AsyncIterator[Stack]:
    scores = CrossEncoderEngine(HfOptions(folders[1], threads=1))
    async with running({"vectors": [vectors], "scores": [scores]}) as found:
        yield found


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key="EMPTY", max_retries=0
    ) as found:
        yield found


async def direct(engine: EncoderEngine, given: Any) -> np.ndarray:
    request = EmbeddingRequest(model="m", input=given)
    return np.array((await engine.embed(request.inputs, request))[0])


async def test_openai_s_client(client: openai.AsyncOpenAI, vectors: EncoderEngine) -> None:
    wanted = await direct(vectors, TEXTS)
    # Without a format the client asks for base64.
    for fields in ({}, {"encoding_format": "float"}):
        answer = await client.embeddings.create(model="vectors", input=TEXTS, **fields)
        assert np.abs(np.array([one.embedding for one in answer.data]) - wanted).max() < 1e-6
        assert answer.usage.prompt_tokens == sum(len(text.encode()) + 2 for text in TEXTS)
    short = await client.embeddings.create(model="vectors", input="hi", dimensions=4)
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1, abs=1e-6)
    ids = await client.embeddings.create(model="vectors", input=[CLS, 104, 105, SEP])
    assert np.abs(np.array(ids.data[0].embedding) - wanted[1]).max() < 1e-6
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="vectors", input=["a", "a", "a", "x" * 5000])
    assert (caught.value.param, caught.value.code) == ("input.3", "context_length_exceeded")


async def test_what_they_do_not_do(client: openai.AsyncOpenAI, stack: Stack) -> None:
    for model, does in (("vectors", "/v1/embeddings"), ("scores", "/v1/rerank")):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match=does) as caught:
                await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "hi"}], stream=stream
                )
            assert (caught.value.param, caught.value.code) == ("model", "unsupported_parameter")
        with pytest.raises(openai.BadRequestError, match=does):
            await client.completions.create(model=model, prompt="hi")
    with pytest.raises(openai.BadRequestError, match="/v1/rerank"):
        await client.embeddings.create(model="scores", input="hi")
    body = {"model": "vectors", "query": "a", "documents": ["a"]}
    answer = await stack.client.post("/v1/rerank", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


async def test_langchain_sends_token_ids(
    stack: Stack, vectors: EncoderEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its own table of tokens is fetched from the net; this one has the model's, which are bytes.
    table = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("b", pat_str=r"[\s\S]", mergeable_ranks=table, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    with openai.DefaultHttpxClient() as http:
        async with openai.DefaultAsyncHttpxClient() as ahttp:
            embeddings = OpenAIEmbeddings(
                model="vectors",
                base_url=f"{stack.url}/v1",
                api_key=SecretStr("EMPTY"),
                embedding_ctx_length=POSITIONS,
                http_client=http,
                http_async_client=ahttp,
            )
            found = np.array(await embeddings.aembed_documents(TEXTS))
            query = np.array(await asyncio.to_thread(embeddings.embed_query, TEXTS[1]))
            # A text that is too long it sends in parts, and takes their mean.
            long = await embeddings.aembed_query("x" * (2 * POSITIONS))
    wanted = await direct(vectors, [list(text.encode()) for text in TEXTS])
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(query - wanted[1]).max() < 1e-6
    assert len(long) == WIDTH


async def test_cohere_s_client(stack: Stack) -> None:
    async with httpx.AsyncClient() as http:
        client = cohere.AsyncClientV2(api_key="EMPTY", base_url=stack.url, httpx_client=http)
        answer = await client.rerank(model="scores", query="who?", documents=TEXTS, top_n=2)
    scores = [one.relevance_score for one in answer.results]
    assert len(scores) == 2
    assert sorted(scores, reverse=True) == scores
    assert all(0 < score < 1 for score in scores)


async def test_requests_of_many_clients(client: openai.AsyncOpenAI) -> None:
    async def ask(number: int) -> list[float]:
        text = f"number {number % 5}"
        return (await client.embeddings.create(model="vectors", input=text)).data[0].embedding

    found = await asyncio.gather(*(ask(number) for number in range(40)))
    for number, vector in enumerate(found):
        assert np.abs(np.array(vector) - np.array(found[number % 5])).max() < 1e-5


async def test_fastchat_s_routes(stack: Stack, vectors: EncoderEngine) -> None:
    worker = next(one for one in stack.workers if "vectors" in one._options.names)
    headers = {"authorization": "Bearer the cluster's secret"}
    async with httpx.AsyncClient(base_url=worker.address, headers=headers) as http:
        answer = await http.post("/worker_get_embeddings", json={"input": TEXTS})
        found = np.array(answer.json()["embedding"])
        details = (await http.post("/model_details", json={"model": "vectors"})).json()
    assert np.abs(found - await direct(vectors, TEXTS)).max() < 1e-6
    assert details == {"context_length": POSITIONS}
