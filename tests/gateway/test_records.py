"""One record for each request, whatever became of it: as the database has it in the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.breaker import BreakerOptions
from tests.support.engines import ScriptedEngine
from tests.support.fastchat_worker import FastChatWorker
from tests.support.stack import SECRET, Stack, running
from tests.support.upstream import (
    Call,
    Upstream,
    attached,
    chat,
    hang,
    quiet,
    records,
    refuses,
    reset,
    until,
)

ADMIN = {"authorization": f"Bearer {SECRET}"}
PRICED = Route(input_price=1e6, cached_input_price=0.5e6, output_price=2e6)


class Book:
    """The records that the gateway has written."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._read = 0

    async def new(self, number: int) -> list[dict[str, Any]]:
        """Exactly so many that came since the last look."""
        params = {"after": self._read, "limit": 1000}
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while len(found) < number:
                await asyncio.sleep(0.05)
                answer = await self.stack.client.get(
                    "/v1/usage/records", params=params, headers=ADMIN
                )
                found = answer.json()["data"]
        assert len(found) == number
        self._read = found[-1]["id"]
        return found

    async def none(self) -> None:
        """None came since the last look, and none comes."""
        await asyncio.sleep(0.7)
        params = {"after": self._read}
        answer = await self.stack.client.get("/v1/usage/records", params=params, headers=ADMIN)
        assert answer.json()["data"] == []


async def make_key(stack: Stack, **fields: Any) -> dict[str, str]:
    answer = await stack.client.post("/admin/keys", json=fields, headers=ADMIN)
    assert answer.status_code in (200, 201), answer.text
    return {"authorization": f"Bearer {answer.json()['key']}", "id": answer.json()["id"]}


@asynccontextmanager
async def booked(tmp_path: Path, **gateway: Any) -> AsyncIterator[tuple[Stack, Book]]:
    options = {"database_url": f"sqlite:///{tmp_path}/usage.db"} | gateway
    async with running({"echo": [ScriptedEngine(0.01)]}, **options) as stack:
        yield stack, Book(stack)


def usage_in(answer: httpx.Response) -> list[Any]:
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return [
        chunk["usage"]
        for chunk in (json.loads(line.removeprefix("data: ")) for line in lines)
        if "usage" in chunk
    ]


async def leaves(stack: Stack, stream: bool, headers: dict[str, str]) -> None:
    """A client that hangs up on an answer that does not end, once the engine is at work."""
    url, body = "/v1/chat/completions", chat("hang", stream=stream)
    await at_work(stack, 0)
    if stream:
        async with stack.client.stream("POST", url, json=body, headers=headers) as answer:
            await anext(line async for line in answer.aiter_lines() if "hang" in line)
        return
    asked = asyncio.create_task(stack.client.post(url, json=body, headers=headers))
    await at_work(stack, 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def at_work(stack: Stack, number: int) -> None:
    """Waits until so many requests are with an engine."""
    async with asyncio.timeout(30):
        while sum(worker._engine.active for worker in stack.workers) != number:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


async def test_every_ending(tmp_path: Path) -> None:
    routes = {"echo": PRICED, "named": Route(fallbacks=("echo",))}
    async with booked(tmp_path, routes=routes, max_body_size=100_000) as (stack, book):
        key = await make_key(stack, owner="team")
        other = await make_key(stack, models=["other"])
        expected: list[dict[str, Any]] = []
        answers: list[httpx.Response] = []

        async def post(
            text: str = "a b c",
            path: str = "/v1/chat/completions",
            *,
            headers: dict[str, str] = key,
            patience: float = 60.0,
            wants: dict[str, Any] | None,
            **fields: Any,
        ) -> httpx.Response:
            body = chat(text, **fields)
            answer = await stack.client.post(path, json=body, headers=headers, timeout=patience)
            if wants is not None:
                expected.append({"path": path, "stream": fields.get("stream", False)} | wants)
                answers.append(answer)
                assert answer.status_code == wants["status"], answer.text
            return answer

        tokens = {"prompt_tokens": 3, "completion_tokens": 3, "cached_tokens": 1}
        good = {"status": 200, "error": None, "served": "echo", "attempts": 1}
        good |= {"replica": stack.workers[0].address, **tokens, "cost": 2 * 1.0 + 1 * 0.5 + 3 * 2.0}
        await post(wants=good)
        for options in ({}, {"include_usage": False}, None):
            answer = await post(stream=True, stream_options=options, wants=good)
            assert usage_in(answer) == [], "nobody asked for it"
        assert usage_in(await post(stream=True, wants=good)) == []
        told = await post(stream=True, stream_options={"include_usage": True}, wants=good)
        assert [u["prompt_tokens"] for u in usage_in(told) if u] == [3]
        await post(model="named", stream=True, wants=good | {"model": "named"})
        voice = await post(path="/chat/completions", wants=good | {"stream": True})
        assert voice.headers["content-type"].startswith("text/event-stream")

        failed: dict[str, Any] = {"cost": None, "prompt_tokens": None, "completion_tokens": None}
        bad = failed | {"status": 400}
        await post(temperature=9, wants=bad | {"error": "out_of_range", "attempts": 1})
        too_long = bad | {"error": "context_length_exceeded"}
        await post("refuse", wants=too_long)
        await post("refuse", stream=True, wants=too_long)
        wrong = {"error": "invalid_value", "model": "", "stream": False}
        await post(stream="yes", wants=bad | wrong)
        missing = {"status": 404, "error": "model_not_found", "model": "no", "attempts": 0}
        await post(model="no", wants=failed | missing)
        denied = {"status": 403, "error": "model_not_allowed", "key": other["id"], "owner": ""}
        await post(headers=other, wants=failed | denied)
        large = {"status": 413, "error": "request_too_large", "model": "", "stream": False}
        await post("x" * 200_000, wants=failed | large)
        for stranger in ({}, {"authorization": "Bearer sk-no"}):
            assert (await post(headers=stranger, wants=None)).status_code == 401

        # The engine breaks, time is up, or the client leaves.
        await post("break", stream=True, wants={"status": 200, "error": "upstream_failed"})
        late = key | {"x-request-timeout": "0.1"}
        timeout = {"error": "request_timeout"}
        await post("hang", headers=late, wants=failed | timeout | {"status": 504})
        late["x-request-timeout"] = "2"
        await post("hang", stream=True, headers=late, wants=timeout | {"status": 200})
        for stream in (False, True):
            await leaves(stack, stream, key)
            await quiet(stack)
            left = {"status": 499, "error": "client_disconnected", "stream": stream}
            expected.append(left | ({} if stream else failed))

        written = await book.new(len(expected))
        for record, wanted in zip(written, expected, strict=True):
            whole = {"model": "echo", "key": key["id"], "owner": "team", "client": "127.0.0.1"}
            whole |= wanted
            assert {name: record[name] for name in whole} == whole
            assert record["duration"] > 0
            if record["stream"] and record["status"] in (200, 499):
                assert 0 < record["first_token"] < record["duration"]
                assert record["completion_tokens"] >= 1, "what its client had is counted"
                assert record["cost"] > 0
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert [record["request_id"] for record in written[: len(ids)]] == ids

        embeddings = {"model": "echo", "input": "x"}
        await stack.client.post("/v1/embeddings", json=embeddings, headers=key)
        completion = {"model": "echo", "prompt": "x"}
        await stack.client.post("/v1/completions", json=completion, headers=key)
        rerank = {"model": "echo", "query": "x", "documents": ["x"]}
        await stack.client.post("/v2/rerank", json=rerank, headers=key)
        first, second, third = await book.new(3)
        assert (first["path"], first["prompt_tokens"]) == ("/v1/embeddings", 7)
        assert (second["path"], second["prompt_tokens"]) == ("/v1/completions", 5)
        assert (third["path"], third["prompt_tokens"]) == ("/v2/rerank", 9)
        assert third["cost"] == 9.0
        await book.none()


async def test_requests_whose_turn_never_came(tmp_path: Path) -> None:
    """Those sent ahead, behind one that is being answered, and one that came in part."""
    engine = ScriptedEngine()
    database = f"sqlite:///{tmp_path}/usage.db"
    async with running({"echo": [engine]}, database_url=database) as stack:
        book = Book(stack)
        key = await make_key(stack, owner="team", concurrent=5)

        def raw(text: str, name: str) -> bytes:
            body = json.dumps(chat(text)).encode()
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                f"authorization: {key['authorization']}\r\nx-request-id: {name}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            return head.encode() + body

        _, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        strange = raw("a", "stranger").replace(b"Bearer ", b"Bearer x")
        writer.write(raw("hang", "first") + raw("a", "second") + strange + raw("a", "third")[:-1])
        await until(lambda: engine.active > 0)
        writer.close()
        left = {"status": 499, "error": "client_disconnected", "owner": "team", "cost": None}
        records = await book.new(3)
        assert {record["request_id"] for record in records} == {"first", "second", "third"}
        for record in records:
            assert {name: record[name] for name in left} == left
            asked = record["request_id"] == "first"
            assert (record["attempts"], record["model"]) == ((1, "echo") if asked else (0, ""))
        await quiet(stack)
        answer = await stack.client.get(f"/admin/keys/{key['id']}", headers=ADMIN)
        assert answer.json()["used"]["concurrent"] == 0
        await book.none()


async def test_a_server_s_endings(tmp_path: Path) -> None:
    async def breaks(call: Call) -> None:
        await call.begin()
        await call.chunk("one", usage=None)
        await call.chunk("two", usage=None)
        await asyncio.sleep(0.05)
        call.reset()

    async def tells_nothing(call: Call) -> None:
        call.body.pop("stream_options")
        await call.say("two words")

    async def tells_nothing_in_windows(call: Call) -> None:
        await call.begin()
        for word in ("two", "words"):
            chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": word}}]})
            await call.raw(b"data: %b\r\n\r\n" % chunk.encode())
        await call.raw(b"data: [DONE]\r\n\r\n")
        call.writer.write(b"0\r\n\r\n")

    async def counts_on(call: Call) -> None:
        """The usage so far in every chunk, as some servers tell it."""
        await call.begin()
        for number in range(1, 4):
            usage = {"prompt_tokens": 4, "completion_tokens": number}
            await call.chunk("word", usage=usage)
        await call.raw(b"data: [DONE]\n\n")
        call.writer.write(b"0\r\n\r\n")

    behaviours: dict[str, Callable[[Call], Awaitable[None]]] = {
        "breaks": breaks,
        "hangs": hang,
        "refuses": refuses(503, retry_after="3"),
        "tells": lambda call: call.say(),
        "tells_nothing": tells_nothing,
        "windows": tells_nothing_in_windows,
        "counts_on": counts_on,
    }
    servers = {name: [Upstream(behave)] for name, behave in behaviours.items()}
    database = f"sqlite:///{tmp_path}/usage.db"
    async with attached(servers, route=PRICED, read_timeout=1.0, database_url=database) as stack:
        book = Book(stack)
        endings = (
            ("breaks", 200, "upstream_disconnected", 2),
            ("hangs", 504, "upstream_timeout", None),
            ("refuses", 503, "no_503", None),
            ("tells", 200, None, 3),
            ("tells_nothing", 200, None, 2),
            ("windows", 200, None, 3),
            ("counts_on", 200, None, 3),
        )
        for name, status, _, _ in endings:
            answer = await stack.client.post(
                "/v1/chat/completions", json=chat(model=name, stream=True)
            )
            assert answer.status_code == status
            if status == 200:
                assert usage_in(answer) == []
        for record, ending in zip(await book.new(len(endings)), endings, strict=True):
            found = [record[name] for name in ("served", "status", "error", "completion_tokens")]
            assert tuple(found) == ending
            assert (record["cost"] is None) is (record["completion_tokens"] is None)
        asked = servers["tells"][0].calls[-1].body
        assert asked["stream_options"] == {"include_usage": True}
        hanging = servers["hangs"][0]
        assert hanging.calls[-1].left
        await until(lambda: hanging.at_work == 0)
        await book.none()


async def test_a_stream_of_fastchat_s_that_is_left_is_counted(tmp_path: Path) -> None:
    worker = FastChatWorker("one two three four")
    worker.delay = 0.1
    database = f"sqlite:///{tmp_path}/usage.db"
    async with running({}, database_url=database) as stack, worker.registered(stack):
        request = stack.client.stream("POST", "/v1/chat/completions", json=chat(stream=True))
        async with request as answer:
            async for line in answer.aiter_lines():
                if "two" in line:
                    break
        await quiet(stack)
        (record,) = await Book(stack).new(1)
        assert (record["status"], record["error"]) == (499, "client_disconnected")
        assert 2 <= record["completion_tokens"] <= 4
        assert record["prompt_tokens"] > 0


async def test_a_stream_that_is_left_is_counted_by_what_it_told(tmp_path: Path) -> None:
    async def tells(call: Call) -> None:
        await call.begin()
        usage = {"prompt_tokens": 40, "completion_tokens": 30}
        usage |= {"prompt_tokens_details": {"cached_tokens": 20}}
        await call.chunk("many tokens in one chunk", usage=usage)
        await call.hang()

    database = f"sqlite:///{tmp_path}/usage.db"
    async with attached([Upstream(tells)], route=PRICED, database_url=database) as stack:
        request = stack.client.stream("POST", "/v1/chat/completions", json=chat(stream=True))
        async with request as answer:
            async for _ in answer.aiter_lines():
                break
        (record,) = await Book(stack).new(1)
        assert (record["status"], record["error"]) == (499, "client_disconnected")
        tokens = [record[f"{name}_tokens"] for name in ("prompt", "cached", "completion")]
        assert tokens == [40, 20, 30]
        assert record["cost"] == 20 * 1.0 + 20 * 0.5 + 30 * 2.0


async def test_what_failed_took_no_tokens(tmp_path: Path) -> None:
    """A key that has used nothing is not locked out; of what nobody knows the estimate stands."""
    server = Upstream()
    database = f"sqlite:///{tmp_path}/usage.db"
    options = {"read_timeout": 0.2, "breaker": BreakerOptions(failures=1000)}
    async with attached([server], database_url=database, **options) as stack:
        key = await make_key(stack, tpm=100)

        async def used() -> int:
            await quiet(stack)
            answer = await stack.client.get(f"/admin/keys/{key['id']}", headers=ADMIN)
            return int(answer.json()["used"]["tokens"])

        async def post(stream: bool, **fields: Any) -> int:
            body = chat("x" * 100, stream=stream) | fields
            answer = await stack.client.post("/v1/chat/completions", json=body, headers=key)
            return answer.status_code

        for stream in (False, True):
            for behave, status in ((refuses(400), 400), (refuses(429), 429), (reset, 502)):
                server.behave = behave
                assert [await post(stream) for _ in range(5)] == [status] * 5
            assert await post(stream, model="unknown") == 404
        assert await used() == 0
        server.behave = hang
        assert await post(False) == 504
        assert 25 < await used() < 100


async def test_a_long_name_of_no_model_is_cut(tmp_path: Path) -> None:
    async with booked(tmp_path) as (stack, book):
        found = records(stack)
        await stack.client.post("/v1/chat/completions", json=chat(model="m" * 100_000))
        assert found[0].model == "m" * 512, "it would stand in logs and traces, and in memory"
        assert (await book.new(1))[0]["model"] == "m" * 512


async def test_none_is_lost_when_the_gateway_stops(tmp_path: Path) -> None:
    """Those of the last moment, and of requests that it did not wait for any longer."""
    database = f"sqlite:///{tmp_path}/usage.db"
    async with running(
        {"echo": [ScriptedEngine()]}, database_url=database, drain_timeout=1.0
    ) as stack:
        for _ in range(20):
            await stack.client.post("/v1/chat/completions", json=chat())
        # Sent before the others are: who has seen those has read it.
        _, half = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        half.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        hanging = [
            asyncio.create_task(
                stack.client.post("/v1/chat/completions", json=chat("hang", stream=stream))
            )
            for stream in (False, True)
        ]
        await at_work(stack, 2)
        await stack.gateway.stop()
        await asyncio.gather(*hanging, return_exceptions=True)
        half.close()
    async with running({}, database_url=database) as again:
        found = await Book(again).new(23)
    assert [record["status"] for record in found[:20]] == [200] * 20
    assert all(record["status"] in (499, 200) and record["error"] for record in found[20:])
