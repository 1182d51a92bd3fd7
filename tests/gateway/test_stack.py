"""The gateway over a real controller and real workers: what clients see."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.options import AttachedServer, ControllerOptions
from dev_opsgpt.transport.server import Server, bind
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack, running


def body(text: str = "one two", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]} | fields


async def ask(stack: Stack, text: str = "one two", **fields: Any) -> httpx.Response:
    return await stack.client.post("/v1/chat/completions", json=body(text, **fields))


async def test_every_route_by_the_openai_client() -> None:
    async with (
        running({"echo": [ScriptedEngine()]}) as stack,
        openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="EMPTY", max_retries=0) as client,
    ):
        plain = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "a b"}]
        )
        assert plain.choices[0].message.content == "a b "
        stream = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "a b"}], stream=True
        )
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "a b "
        done = await client.completions.create(model="echo", prompt="x")
        assert done.choices[0].text == "<x:0>"
        vectors = await client.embeddings.create(model="echo", input="abc")
        assert vectors.data[0].embedding == [3.0, 0.5]
        assert [model.id async for model in client.models.list()] == ["echo"]
        assert (await client.models.retrieve("echo")).id == "echo"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")


async def test_token_check() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        prompts = [
            {"model": "echo", "prompt": "abc", "max_tokens": 10},
            {"model": "echo", "prompt": "abc", "max_tokens": 5000},
        ]
        answer = await stack.client.post("/api/v1/token_check", json={"prompts": prompts})
        assert answer.json() == {
            "prompts": [
                {"fits": True, "tokenCount": 3, "contextLength": 4096},
                {"fits": False, "tokenCount": 3, "contextLength": 4096},
            ]
        }
        prompts[0]["model"] = "nope"
        missing = await stack.client.post("/api/v1/token_check", json={"prompts": prompts})
        assert missing.status_code == 404


async def test_the_worker_s_errors_reach_the_client() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        for fields, status, param in (
            ({"temperature": 5}, 400, "temperature"),
            ({"model": "nope"}, 404, "model"),
            ({"messages": []}, 400, "messages"),
        ):
            answer = await ask(stack, **fields)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        refused = await ask(stack, "refuse", stream=True)
        assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_requests_spread_over_replicas() -> None:
    engines = [ScriptedEngine(0.01) for _ in range(3)]
    async with running({"echo": engines}) as stack:
        await asyncio.gather(*(ask(stack) for _ in range(60)))
    assert all(10 <= engine.served <= 30 for engine in engines)


async def test_a_dead_worker_is_passed_over_unseen() -> None:
    engines = [ScriptedEngine(), ScriptedEngine()]
    async with running({"echo": engines}) as stack:
        # Its port closes as a crash closes it: no goodbye, the table still lists it.
        dead = stack.workers[0]
        assert dead._server is not None
        assert dead._registration is not None
        dead._registration._task.cancel()  # type: ignore[union-attr]
        await dead._server.stop()
        answers = await asyncio.gather(*(ask(stack) for _ in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 20
        assert engines[1].served >= 20


async def test_overload_tries_the_others_and_then_says_so() -> None:
    engines = [ScriptedEngine(), ScriptedEngine()]
    async with running({"echo": engines}, worker={"limit": 1, "queue_size": 0}) as stack:
        hanging = [asyncio.create_task(ask(stack, "hang")) for _ in range(2)]
        while sum(engine.active for engine in engines) < 2:
            await asyncio.sleep(0.01)
        answer = await ask(stack)
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_known_to_the_engine(stream: bool) -> None:
    engine = ScriptedEngine()
    async with running({"echo": [engine]}) as stack:
        asked = asyncio.create_task(ask(stack, "hang", stream=stream))
        async with asyncio.timeout(30):
            while not engine.active:
                await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait_for(engine.closed.wait(), 30)


async def test_a_released_model_finishes_what_is_in_flight() -> None:
    engine = ScriptedEngine(0.2)
    async with running({"echo": [engine]}) as stack:
        answer = asyncio.create_task(ask(stack, "a b c d"))
        while not engine.active:
            await asyncio.sleep(0.01)
        await stack.workers[0].stop()
        assert (await answer).json()["choices"][0]["message"]["content"] == "a b c d "
        # The gateway hears of it a moment later.
        async with asyncio.timeout(30):
            while (gone := await ask(stack)).status_code == 503:
                await asyncio.sleep(0.02)
        assert gone.status_code == 404
        stack.workers.clear()


async def test_a_declared_model_that_is_not_there_yet_is_unavailable() -> None:
    async with running({}, declared=("echo",)) as stack:
        answer = await ask(stack)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert (await ask(stack, model="other")).status_code == 404


async def test_keys() -> None:
    async with running({"echo": [ScriptedEngine()]}, api_keys=("sk-one",)) as stack:
        for path in ("/v1/chat/completions", "/chat/completions"):
            assert (await stack.client.post(path, json=body())).status_code == 401
            wrong = {"authorization": "Bearer sk-two"}
            answer = await stack.client.post(path, json=body(), headers=wrong)
            assert answer.json()["error"]["code"] == "invalid_api_key"
            right = {"authorization": "Bearer sk-one"}
            good = await stack.client.post(path, json=body(), headers=right)
            assert good.status_code == 200
        assert (await stack.client.get("/v1/models")).status_code == 401
        assert (await stack.client.get("/v1/models", headers=right)).status_code == 200
        assert (await stack.client.get("/health")).status_code == 200


async def test_bad_bodies_are_refused_and_the_next_request_works() -> None:
    async with running({"echo": [ScriptedEngine()]}, max_body_size=1_000_000) as stack:
        deep = b'{"model":"echo","messages":' + b"[" * 100_000
        for content, status in (
            (b"{", 400),
            (b"", 400),
            (deep, 400),
            (b'{"model":"echo","messages":[{"role":"user","content":"\xff"}]}', 400),
            (b"x" * 2_000_000, 413),
        ):
            answer = await stack.client.post("/v1/chat/completions", content=content)
            assert answer.status_code == status
            assert answer.json()["error"]["message"]
            assert (await ask(stack)).status_code == 200


async def test_the_voice_platform_s_route_streams_by_default() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        answer = await stack.client.post("/chat/completions", json=body(context={"appId": "a"}))
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n")
        plain = await stack.client.post("/chat/completions", json=body(stream=False))
        assert plain.json()["choices"][0]["message"]["content"] == "one two "


async def test_the_catch_all_upstream_gets_the_client_s_own_key_and_never_ours() -> None:
    async with running({"far": [ScriptedEngine()]}, api_keys=("sk-far",)) as far:
        base = f"{far.url}/v1"
        async with running(
            {"echo": [ScriptedEngine()]}, llm_base_url=base, api_keys=("sk-near",)
        ) as near:

            async def call(model: str, key: str | None) -> httpx.Response:
                headers = {} if key is None else {"authorization": f"Bearer {key}"}
                return await near.client.post(
                    "/chat/completions", json=body(model=model), headers=headers
                )

            ok = await call("far", "sk-far")
            assert ok.status_code == 200
            assert ok.text.endswith("data: [DONE]\n\n")
            assert (await call("far", "sk-wrong")).status_code == 401, "the upstream's own word"
            assert (await call("far", None)).status_code == 401
            assert (await call("far", "sk-near")).status_code == 404, "our key stays here"
            assert (await call("echo", "sk-near")).status_code == 200
            assert (await call("echo", "sk-far")).status_code == 401
            v1 = await near.client.post(
                "/v1/chat/completions",
                json=body(model="far"),
                headers={"authorization": "Bearer sk-near"},
            )
            assert v1.status_code == 404


async def test_an_attached_openai_server_is_one_hop_away() -> None:
    async with running({"inner": [ScriptedEngine()]}, api_keys=("sk-inner",)) as inner:
        url = f"{inner.url}/v1"
        server = AttachedServer("outer", url, upstream_model="inner", api_key="sk-inner")
        async with running(
            {},
            controller={"attached": (server,), "probe_interval": 0.1},
            attached_keys={url: "sk-inner"},
        ) as stack:
            await stack.expect(1, "outer")
            answer = await ask(stack, model="outer")
            assert answer.json()["choices"][0]["message"]["content"] == "one two "
            streamed = await ask(stack, model="outer", stream=True)
            assert streamed.text.endswith("data: [DONE]\n\n")


async def test_the_controller_goes_and_comes_back() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        port = stack.controller.port
        app = stack.controller._server.config.app
        app.state.controller.close()  # type: ignore[union-attr]
        await stack.controller.stop()
        for _ in range(5):
            assert (await ask(stack)).status_code == 200
        stack.controller = Server(
            create_app(ControllerOptions(secret=SECRET)), bind("127.0.0.1", port), drain_timeout=1
        )
        await stack.controller.start()
        await stack.expect(1)
        await stack.add_worker(ScriptedEngine())
        await stack.expect(2)


async def test_docs_need_nothing_from_outside() -> None:
    async with running({}) as stack:
        page = (await stack.client.get("/docs")).text
        assert "://" not in page.replace("http://www.w3.org", "")
        for part in page.split('"'):
            if part.startswith("/static-offline-docs/"):
                assert (await stack.client.get(part)).status_code == 200
        document = (await stack.client.get("/openapi.json")).json()
        assert "post" in document["paths"]["/v1/chat/completions"]
        assert json.dumps(document).count("ChatRequest")


async def test_a_catch_all_upstream_closes_nothing_that_was_open() -> None:
    async with running({"echo": [ScriptedEngine()]}, llm_base_url="http://127.0.0.1:9/v1") as stack:
        open_to_all = await stack.client.post("/chat/completions", json=body())
        assert open_to_all.status_code == 200
        unknown = await stack.client.post("/chat/completions", json=body(model="far"))
        assert unknown.status_code == 401
        headers = {"authorization": "Bearer sk-own"}
        away = await stack.client.post("/chat/completions", json=body(model="far"), headers=headers)
        assert away.status_code == 502
        assert "sk-own" not in away.text


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (b"no json", "application/json", None),
        (b"", "application/json", None),
        (b"[]", "application/json", None),
        (b'{"prompts": [{"model": "\xff"}]}', "application/json", None),
        (b'{"prompts": []}', "text/plain", None),
        (b'{"prompts": 5}', "application/json", "prompts"),
        (b'{"prompts": [{"model": "echo", "prompt": 5}]}', "application/json", "prompts.0.prompt"),
    ],
)
async def test_a_token_check_that_cannot_be_read(body: bytes, kind: str, param: str | None) -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        answer = await stack.client.post(
            "/api/v1/token_check", content=body, headers={"content-type": kind}
        )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] == ("invalid_value" if param else "invalid_json")
    assert "None" not in error["message"]


async def test_a_token_check_is_bounded_and_wants_its_key_first() -> None:
    async with running({"echo": [ScriptedEngine()]}, max_body_size=1000) as stack:
        prompt = {"model": "echo", "prompt": "a" * 1000, "max_tokens": 1}
        answer = await stack.client.post("/api/v1/token_check", json={"prompts": [prompt]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    async with running({"echo": [ScriptedEngine()]}, api_keys=["sk-1"]) as stack:
        assert (await stack.client.post("/api/v1/token_check", content=b"x")).status_code == 401
