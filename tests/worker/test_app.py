"""A worker on a real port: OpenAI's routes by the real client, errors, cancellation, secrets."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from dev_opsgpt.worker.engine import Engine
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.engines import ScriptedEngine

SECRET = "worker secret"


async def start(engine: Engine, **options: Any) -> WorkerRuntime:
    worker = WorkerRuntime(engine, WorkerOptions(names=["echo"], secret=SECRET, **options))
    await worker.start()
    return worker


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def worker(engine: ScriptedEngine) -> AsyncIterator[WorkerRuntime]:
    found = await start(engine, max_body=100_000)
    yield found
    await found.stop()
    assert engine.stopped


@pytest.fixture
async def http(worker: WorkerRuntime) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(base_url=worker.address, headers=headers) as client:
        yield client


@pytest.fixture
async def client(worker: WorkerRuntime) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{worker.address}/v1",
        api_key=SECRET,
        max_retries=0,
        _strict_response_validation=True,
    ) as found:
        yield found


def says(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_plain(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="echo", messages=says("one two"))
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 2)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


async def test_streamed_equals_plain(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="echo",
        messages=says("a b c"),
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        top_logprobs=1,
        n=2,
    )
    texts = ["", ""]
    tokens: list[list[str]] = [[], []]
    usages = []
    async for chunk in stream:
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.logprobs and choice.logprobs.content:
                tokens[choice.index] += [entry.token for entry in choice.logprobs.content]
    assert texts == ["a b c "] * 2
    assert tokens == [["a", "b", "c"]] * 2
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] is not None
    assert (usages[-1].prompt_tokens, usages[-1].completion_tokens) == (3, 6)


async def test_tool_calls_are_put_together(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="echo", messages=says("call"))
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("add", '{"a": 1}')
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None


async def test_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model="echo", prompt=["a", "b"], n=2, echo=True, max_tokens=3
    )
    assert [choice.text for choice in answer.choices] == ["a<a:0>", "a<a:1>", "b<b:0>", "b<b:1>"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 4)
    # OpenAI streams "finish_reason": null here, against its own document; so do we.
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=SECRET) as relaxed:
        stream = await relaxed.completions.create(
            model="echo", prompt="a", echo=True, stream=True, max_tokens=3
        )
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "a<a:0>"
    scored = await client.completions.create(model="echo", prompt=[1, 2], logprobs=1)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.text_offset == [0]
    assert logprobs.top_logprobs == [{"<[1, 2]:0>": -0.5}]


async def test_embeddings(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    answer = await client.embeddings.create(
        model="echo", input=["a", "bcd"], encoding_format="float"
    )
    assert [item.embedding for item in answer.data] == [[1.0, 0.5], [3.0, 0.5]]
    plain = await http.post("/v1/embeddings", json={"model": "echo", "input": "ab"})
    assert plain.json()["data"][0]["embedding"] == [2.0, 0.5]
    packed = {"model": "echo", "input": "ab", "encoding_format": "base64"}
    data = (await http.post("/v1/embeddings", json=packed)).json()["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(data)) == (2.0, 0.5)


async def test_many_vectors() -> None:
    class Wide(ScriptedEngine):
        async def embed(self, inputs: Any, request: Any) -> tuple[list[list[float]], int]:
            return [[float(at), *[0.5] * 999] for at, _ in enumerate(inputs)], 7

    worker = await start(Wide())
    try:
        async with openai.AsyncOpenAI(base_url=f"{worker.address}/v1", api_key=SECRET) as wide:
            # By default the client asks for base64.
            for fields in ({}, {"encoding_format": "float"}):
                answer = await wide.embeddings.create(model="echo", input=["a"] * 100, **fields)
                assert len(answer.data) == 100
                assert answer.data[99].embedding == [99.0, *[0.5] * 999]
    finally:
        await worker.stop()


async def test_rerank(http: httpx.AsyncClient) -> None:
    documents = ["b", "a a", {"text": "a", "id": 7}, "c"]
    body: dict[str, Any] = {"model": "echo", "query": "a", "documents": documents}
    found = (await http.post("/v1/rerank", json=body)).json()
    scores = [(result["index"], result["relevance_score"]) for result in found["results"]]
    # Those that are alike stay in their order.
    assert scores == [(1, 2.0), (2, 1.0), (0, 0.0), (3, 0.0)]
    assert all("document" not in result for result in found["results"])
    assert found["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert found["meta"]["tokens"] == {"input_tokens": 9}
    assert found["model"] == "echo"
    assert found["id"].startswith("rerank-")
    body |= {"top_n": 2, "return_documents": True}
    found = (await http.post("/v1/rerank", json=body)).json()
    texts = [result["document"] for result in found["results"]]
    assert texts == [{"text": "a a"}, {"text": "a"}]
    body["top_n"] = 99
    assert len((await http.post("/v1/rerank", json=body)).json()["results"]) == 4


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": ""}, "query", "invalid_value"),
        ({"query": None}, "query", "invalid_value"),
        ({"query": ["a"]}, "query", "invalid_value"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": "a"}, "documents", "invalid_value"),
        ({"documents": ["a"] * 2049}, "documents", "invalid_value"),
        ({"documents": ["a", ""]}, "documents.1", "invalid_value"),
        ({"documents": ["a", 7]}, "documents.1", "invalid_value"),
        ({"documents": ["a", {"text": ""}]}, "documents.1.text", "invalid_value"),
        ({"documents": ["a", {"title": "b"}]}, "documents.1.text", "invalid_value"),
        ({"top_n": 0}, "top_n", "out_of_range"),
        ({"top_n": "1"}, "top_n", "invalid_value"),
        ({"return_documents": 1}, "return_documents", "invalid_value"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc", "out_of_range"),
        ({"rank_fields": ["title"]}, "rank_fields", "unsupported_parameter"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc", "unsupported_parameter"),
        ({"model": "other"}, "model", "model_not_found"),
    ],
)
async def test_rerank_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str, code: str
) -> None:
    body = {"model": "echo", "query": "a", "documents": ["a"], **fields}
    answer = await http.post("/v1/rerank", json=body)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


async def test_a_model_that_does_not_rerank() -> None:
    class Chatty(ScriptedEngine):
        rerank = None  # type: ignore[assignment]

    worker = await start(Chatty())
    try:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {SECRET}"}) as client:
            body = {"model": "echo", "query": "a", "documents": ["a"]}
            answer = await client.post(f"{worker.address}/v1/rerank", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "model"
        assert answer.json()["error"]["code"] == "unsupported_parameter"
    finally:
        await worker.stop()


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["echo"]


async def test_an_error_before_the_first_step_has_its_status(client: openai.AsyncOpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="echo", messages=says("refuse"), stream=stream
            )
        assert caught.value.code == "context_length_exceeded"


async def test_an_error_in_mid_stream_is_an_event_without_done(http: httpx.AsyncClient) -> None:
    body = {"model": "echo", "messages": says("break"), "stream": True}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert '"content":"break "' in answer.text
    assert answer.text.rstrip().endswith(
        '{"error":{"message":"The engine broke.","type":"server_error","param":null,'
        '"code":"upstream_failed"}}'
    )
    assert "[DONE]" not in answer.text


async def test_an_error_in_mid_stream_reaches_the_openai_client(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(model="echo", messages=says("break"), stream=True)
    with pytest.raises(openai.APIError, match="The engine broke"):
        _ = [chunk async for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_frees_its_slot(
    http: httpx.AsyncClient, engine: ScriptedEngine, stream: bool
) -> None:
    body = {"model": "echo", "messages": says("hang"), "stream": stream}
    asked = asyncio.create_task(http.post("/v1/chat/completions", json=body, timeout=None))
    async with asyncio.timeout(30):
        while not engine.active:
            await asyncio.sleep(0.01)
    asked.cancel()
    await asyncio.wait_for(engine.closed.wait(), 30)
    assert engine.active == 0
    async with asyncio.timeout(30):
        while (await http.get("/health")).json()["running"]:
            await asyncio.sleep(0.01)


async def test_overload_is_429_with_retry_after(engine: ScriptedEngine) -> None:
    worker = await start(engine, limit=1, queue_size=0, drain_timeout=0.1)
    headers = {"authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(base_url=worker.address, headers=headers) as client:
        body = {"model": "echo", "messages": says("hang")}
        first = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        while not engine.active:
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    await worker.stop()


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/chat/completions", "POST"),
        ("/v1/completions", "POST"),
        ("/v1/embeddings", "POST"),
        ("/v1/rerank", "POST"),
        ("/v1/models", "GET"),
        ("/worker_generate_stream", "POST"),
        ("/worker_generate", "POST"),
        ("/worker_get_embeddings", "POST"),
        ("/worker_get_status", "POST"),
        ("/count_token", "POST"),
        ("/worker_get_conv_template", "POST"),
        ("/model_details", "POST"),
        ("/release", "POST"),
    ],
)
async def test_nobody_calls_without_the_secret(
    worker: WorkerRuntime, path: str, method: str
) -> None:
    async with httpx.AsyncClient(base_url=worker.address) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer é"}):
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = await client.request(method, path, headers=encoded, content=b"{}")
            assert answer.status_code == 401, headers
            assert SECRET not in answer.text


async def test_health_is_open(worker: WorkerRuntime) -> None:
    async with httpx.AsyncClient(base_url=worker.address) as client:
        answer = (await client.get("/health")).json()
    assert answer == {"status": "ok", "models": ["echo"], "running": 0, "waiting": 0}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"model":"echo","messages":[{"role":"user","content":"\xff"}]}', 400, None),
        (b'{"model":"nope","messages":[{"role":"user","content":"a"}]}', 404, "model"),
        (b'{"model":"echo","messages":[{"role":"king","content":"a"}]}', 400, "messages.0.role"),
        (b'{"model":"echo","messages":[]}', 400, "messages"),
        (b'{"model":"echo"}', 400, "messages"),
        (b'{"model":"echo","messages":"hi"}', 400, "messages"),
        (b" " * 200_000, 413, None),
    ],
)
async def test_bad_bodies(
    http: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    answer = await http.post("/v1/chat/completions", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param
    good = {"model": "echo", "messages": says("fine")}
    assert (await http.post("/v1/chat/completions", json=good)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt"),
    ],
)
async def test_completions_refuse_what_they_cannot_do(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    answer = await http.post("/v1/completions", json={"model": "echo", "prompt": "a"} | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_release_without_a_new_model_stops_the_worker(
    worker: WorkerRuntime, http: httpx.AsyncClient
) -> None:
    kept = await http.post("/release", json={"keep_origin": True})
    assert kept.json() == {"code": 200, "msg": "done"}
    assert not worker.stopping.is_set()
    answer = await http.post("/release", json={})
    assert answer.json() == {"code": 200, "msg": "done"}
    assert worker.stopping.is_set()
