"""A provider in OpenAI's dialect behind a worker, called by OpenAI's own client."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from dev_opsgpt.service.model_workers.base import ApiChatParams
from dev_opsgpt.service.model_workers.loader import make_engine
from dev_opsgpt.service.model_workers.openai import ExampleWorker, OpenAIWorker
from dev_opsgpt.service.model_workers.openai_engine import OpenAIEngine
from dev_opsgpt.worker.engine import EngineError
from dev_opsgpt.worker.runtime import WorkerRuntime

from .vendors import (
    ERRORS,
    KEY,
    SECRET,
    USAGE,
    Settings,
    Vendor,
    client_of,
    lifespan,
    running,
    serving,
    worker,
)

TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def says(text: str) -> Any:
    return [{"role": "system", "content": "### Be kind"}, {"role": "user", "content": text}]


async def ask(client: openai.AsyncOpenAI, text: str, **more: Any) -> Any:
    return await client.chat.completions.create(model="example", messages=says(text), **more)


async def text_of(stream: Any) -> str:
    found = ""
    async for chunk in stream:
        for choice in chunk.choices:
            found += choice.delta.content or ""
    return found


async def test_plain(client: openai.AsyncOpenAI, api: Vendor) -> None:
    answer = await ask(client, "hi", extra_body={"new_field": {"deep": [1, 2]}}, logprobs=True)
    assert answer.choices[0].message.content == "You said hi."
    assert answer.usage.prompt_tokens == 7
    assert answer.model_extra == {"vendor_extension": {"kept": True}}
    asked = api.requests[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert SECRET not in asked.headers.values()
    assert asked.body == {
        "model": "gpt-x",
        "messages": says("hi"),
        "new_field": {"deep": [1, 2]},
        "logprobs": True,
    }


async def test_streamed(client: openai.AsyncOpenAI) -> None:
    stream = await ask(client, "hi", stream=True)
    assert await text_of(stream) == "You said hi."


async def test_stream_bytes_are_the_vendors(runtime: WorkerRuntime, entry: dict[str, Any]) -> None:
    body = {"model": "example", "messages": says("好 hi"), "stream": True}
    async with httpx.AsyncClient() as http:
        ours = await http.post(
            f"{runtime.address}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {SECRET}"},
        )
        url = f"{entry['api_base_url']}/chat/completions"
        theirs = await http.post(url, json=body | {"model": "gpt-x"})
    assert ours.content == theirs.content
    assert ours.headers["content-type"] == theirs.headers["content-type"]


async def test_tools(client: openai.AsyncOpenAI) -> None:
    answer = await ask(client, "weather?", tools=[TOOL], tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    stream = await ask(client, "weather?", tools=[TOOL], stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.tool_calls[0].function.name == "weather"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_several_answers(client: openai.AsyncOpenAI) -> None:
    assert len((await ask(client, "hi", n=3)).choices) == 3


async def test_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="example", prompt="hi")
    assert answer.choices[0].text == "You said hi."


async def test_embeddings(entry: dict[str, Any], api: Vendor) -> None:
    async with worker(entry | {"embed_model": "embed-x"}) as runtime, client_of(runtime) as client:
        answer = await client.embeddings.create(
            model="example", input=["a", "bcd"], encoding_format="float"
        )
    rows = sorted(answer.data, key=lambda row: row.index)
    assert [row.embedding[0] for row in rows] == [1.0, 3.0]
    assert api.requests[0].body["model"] == "embed-x"


async def test_rerank_is_relayed(runtime: WorkerRuntime, api: Vendor) -> None:
    body = {"model": "example", "query": "a", "documents": ["a"], "new_field": 1}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {SECRET}"}) as http:
        answer = await http.post(f"{runtime.address}/v1/rerank", json=body)
    assert answer.json()["results"][0]["vendor_extension"] == 1
    assert api.requests[0].path == "/v1/rerank"
    # Nothing is added to it: the entry's default parameters are for what is generated.
    assert api.requests[0].body == body | {"model": "gpt-x"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_own_errors_pass(client: openai.AsyncOpenAI, stream: bool) -> None:
    for text in ("bad field", "no model", "unprocessable", "slow down"):
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, text, stream=stream)
        assert caught.value.status_code == ERRORS[text]
        error: Any = caught.value.body
        assert (error["param"], error["code"], error["extra"]) == ("messages", "odd", 1)
        assert KEY not in caught.value.response.text
        again = caught.value.response.headers.get("retry-after")
        assert again == ("7" if text == "slow down" else None)


async def test_a_refused_key_is_the_operators_trouble(
    client: openai.AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("bad key", "no access"):
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, text)
        assert caught.value.status_code == 502
        assert caught.value.code == "upstream_auth_failed"
        assert "refused" in caplog.text
        assert KEY not in caught.value.response.text + caplog.text


async def test_other_errors(client: openai.AsyncOpenAI) -> None:
    for text, status in (("broken", 502), ("away", 503), ("html", 429)):
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, text)
        assert caught.value.status_code == status
        assert KEY not in caught.value.response.text
        assert "html>" not in caught.value.response.text
        if text == "away":
            assert caught.value.response.headers["retry-after"] == "7"


async def test_nobody_there(entry: dict[str, Any]) -> None:
    gone = {"api_base_url": "http://127.0.0.1:9/v1"}
    async with worker(entry | gone) as runtime, client_of(runtime) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, "hi")
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_unreachable"


async def test_a_stream_that_breaks_ends_with_an_error(runtime: WorkerRuntime) -> None:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {SECRET}"}) as http:
        for text in ("die", "cut", "fault"):
            body = {"model": "example", "messages": says(text), "stream": True}
            answer = await http.post(f"{runtime.address}/v1/chat/completions", json=body)
            events = [event for event in answer.text.split("\n\n") if event]
            assert len(events) == 2
            assert '"content": "You "' in events[0]
            assert events[-1].startswith('data: {"error":')
            assert "[DONE]" not in answer.text
            assert KEY not in answer.text


async def test_a_missing_done_is_put_in(client: openai.AsyncOpenAI) -> None:
    assert await text_of(await ask(client, "no done", stream=True)) == "You said no done."


async def test_the_clients_hanging_up_reaches_the_vendor(
    client: openai.AsyncOpenAI, api: Vendor
) -> None:
    stream = await ask(client, "hang", stream=True)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(30):
        await api.hung_up.wait()


async def test_a_silent_vendor(entry: dict[str, Any], api: Vendor) -> None:
    async with worker(entry | {"timeout": 0.2}) as runtime, client_of(runtime) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, "hang")
        assert caught.value.status_code == 504
        with pytest.raises(openai.APIError, match="in time"):
            await text_of(await ask(client, "hang", stream=True))


async def test_the_client_s_own_key(entry: dict[str, Any], api: Vendor) -> None:
    headers = {"X-OpsGPT-Client-Key": "sk-of-the-client"}
    async with worker(entry | {"api_key": ""}) as runtime, client_of(runtime) as client:
        await ask(client, "hi", extra_headers=headers)
        assert api.requests[0].headers["authorization"] == "Bearer sk-of-the-client"
        with pytest.raises(openai.AuthenticationError, match="your key"):
            await ask(client, "bad key", extra_headers=headers)
        await ask(client, "hi")
        assert "authorization" not in api.requests[2].headers
    async with worker(entry) as runtime, client_of(runtime) as client:
        await ask(client, "hi", extra_headers=headers)
    assert api.requests[3].headers["authorization"] == f"Bearer {KEY}"


async def test_default_params(entry: dict[str, Any], api: Vendor) -> None:
    settings = Settings(default_params={"temperature": 0.2, "max_tokens": 9})
    async with worker(entry, settings=settings) as runtime, client_of(runtime) as client:
        await ask(client, "hi", temperature=1.0)
        await ask(client, "hi", max_completion_tokens=5)
    first, second = (request.body for request in api.requests)
    assert (first["temperature"], first["max_tokens"]) == (1.0, 9)
    assert second["temperature"] == 0.2
    assert "max_tokens" not in second


async def test_the_worker_still_checks_the_name(client: openai.AsyncOpenAI, api: Vendor) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="other", messages=says("hi"))
    assert api.requests == []


@asynccontextmanager
async def proxy(seen: list[str]) -> AsyncIterator[str]:
    """An HTTP proxy that asks for a password."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        seen.append(head)
        url = httpx.URL(target)
        size = next(int(x.split(":")[1]) for x in rest if x.lower().startswith("content-length"))
        body = await reader.readexactly(size)
        async with httpx.AsyncClient() as http:
            answer = await http.request(method, url, content=body)
        data = answer.content
        kind = answer.headers["content-type"]
        start = f"HTTP/1.1 {answer.status_code} X\r\ncontent-type: {kind}\r\n"
        writer.write(f"{start}content-length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://user:proxy-password@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_proxy(entry: dict[str, Any]) -> None:
    seen: list[str] = []
    async with (
        proxy(seen) as url,
        worker(entry | {"openai_proxy": url}) as runtime,
        client_of(runtime) as client,
    ):
        answer = await ask(client, "hi")
        assert await text_of(await ask(client, "hi", stream=True)) == "You said hi."
        with pytest.raises(openai.BadRequestError):
            await ask(client, "bad field")
    assert answer.choices[0].message.content == "You said hi."
    credentials = base64.b64encode(b"user:proxy-password").decode()
    assert f"Basic {credentials}" in seen[0]


async def test_a_proxy_that_is_away(entry: dict[str, Any]) -> None:
    away = {"openai_proxy": "http://user:proxy-password@127.0.0.1:9"}
    async with worker(entry | away) as runtime, client_of(runtime) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, "hi")
    assert caught.value.code == "upstream_unreachable"
    assert "proxy-password" not in caught.value.response.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"api_base_url": "ftp://x"}, "api_base_url"),
        ({"api_key": "two\nlines" + KEY}, "api_key"),
        ({"api_key": "钥匙" + KEY}, "api_key"),
        ({"openai_proxy": "nothing://u:secret-word@x"}, "openai_proxy"),
        ({"openai_proxy": "socks5://x:1"}, "httpx[socks]"),
        ({"is_pro": "perhaps"}, "is_pro"),
    ],
)
async def test_a_wrong_entry_is_one_clear_line(change: dict[str, Any], told: str) -> None:
    entry = {"api_base_url": "http://127.0.0.1:9/v1", "api_key": KEY, "provider": "ExampleWorker"}
    engine = make_engine("example", entry | change, Settings())
    with pytest.raises(EngineError) as caught:
        await engine.start()
    line = str(caught.value)
    assert told in line
    assert "ONLINE_LLM_MODEL['example']" in line
    assert "\n" not in line
    assert KEY not in line
    assert "secret-word" not in line


async def test_fastchats_routes(runtime: WorkerRuntime) -> None:
    async with httpx.AsyncClient(
        base_url=runtime.address, headers={"authorization": f"Bearer {SECRET}"}
    ) as http:
        asked = {"model": "example", "prompt": "hi", "echo": False}
        frame = (await http.post("/worker_generate", json=asked)).json()
        assert frame["text"] == "You said hi."
        frame = (await http.post("/worker_generate", json=asked | {"prompt": "broken"})).json()
        assert frame["error_code"] == 50001
        assert KEY not in frame["text"]
        asked = {"model": "example", "input": ["a", "bcd"]}
        found = (await http.post("/worker_get_embeddings", json=asked)).json()
        assert found == {"embedding": [[1.0, 0.5], [3.0, 0.5]], "token_num": 4}
        found = (await http.post("/count_token", json={"prompt": "four letter"})).json()
        assert found == {"count": 3, "error_code": 0}
        found = (await http.post("/model_details", json={})).json()
        assert found == {"context_length": 16384}


async def test_a_class_may_take_a_route_over(entry: dict[str, Any], api: Vendor) -> None:
    class Louder(ExampleWorker):
        async def do_chat(self, params: ApiChatParams) -> Any:
            async for item in super().do_chat(params):
                yield item | {"text": item["text"].upper()}

    made = Louder(version="gpt-x", api_base_url=entry["api_base_url"], api_key=KEY)
    engine = OpenAIEngine(made, name="example")
    async with running(engine) as runtime, client_of(runtime) as client:
        answer = await ask(client, "hi")
        assert answer.choices[0].message.content == "YOU SAID HI."
        assert answer.usage.total_tokens == USAGE["total_tokens"]
        assert await text_of(await ask(client, "hi", stream=True)) == "YOU SAID HI."
        with pytest.raises(openai.BadRequestError, match="tools"):
            await ask(client, "hi", tools=[TOOL])
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client, "bad key")
        assert caught.value.code == "upstream_auth_failed"
        # Embeddings are relayed as before.
        found = await client.embeddings.create(
            model="example", input="abc", encoding_format="float"
        )
        assert found.data[0].embedding[0] == 3.0


async def test_a_path_with_a_query(api: Vendor, entry: dict[str, Any]) -> None:
    class Dated(OpenAIWorker):
        def url(self, path: str) -> str:
            return f"{super().url(path)}?api-version=2"

        def headers(self, client_key: str | None = None) -> dict[str, str]:
            found = super().headers(client_key)
            found.pop("authorization", None)
            return found | {"api-key": self.api_key}

    made = Dated(version="gpt-x", api_base_url=entry["api_base_url"], api_key=KEY)
    engine = OpenAIEngine(made, name="example")
    async with running(engine) as runtime, client_of(runtime) as client:
        await ask(client, "hi")
    assert api.requests[0].path == "/v1/chat/completions?api-version=2"
    assert api.requests[0].headers["api-key"] == KEY


async def test_a_large_answer_streams_through(entry: dict[str, Any]) -> None:
    rows = b'{"data": "' + b"x" * (9 << 20) + b'"}'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for start in range(0, len(rows), 1 << 20):
            piece = rows[start : start + (1 << 20)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with (
        serving(lifespanned(app)) as url,
        worker(entry | {"api_base_url": url}) as runtime,
        httpx.AsyncClient(headers={"authorization": f"Bearer {SECRET}"}) as http,
    ):
        body = {"model": "example", "messages": []}
        answer = await http.post(f"{runtime.address}/v1/chat/completions", json=body)
    assert answer.content == rows


def lifespanned(app: Any) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await app(scope, receive, send)

    return wrapped


async def test_nothing_secret_is_logged(
    client: openai.AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="dev_opsgpt")
    for text in ERRORS:
        with pytest.raises(openai.APIStatusError):
            await ask(client, text)
    assert KEY not in caplog.text
    assert SECRET not in caplog.text
