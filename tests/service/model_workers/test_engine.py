"""Classes with a ``do_chat`` of every kind behind a worker, called by OpenAI's own client."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from dev_opsgpt.protocol.errors import ContextLengthExceeded
from dev_opsgpt.service.model_workers.base import (
    ApiChatParams,
    ApiCompletionParams,
    ApiEmbeddingsParams,
    ApiModelWorker,
)
from dev_opsgpt.service.model_workers.engine import ProviderEngine

from .vendors import SECRET, client_of, running

KEY = "key-of-this-provider-0123"
WORDS = ["One", "One two", "One two three."]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {}}}


class Scripted(ApiModelWorker):
    """Hands each ``do_chat`` to ``script`` and keeps what it was asked."""

    def __init__(self, script: Any = None, **kwargs: Any) -> None:
        super().__init__(model_names=["example"], context_len=16384, **kwargs)
        self.config = {"api_key": KEY, "version": "v1", "own_key": "of the entry"}
        self.script = script
        self.asked: list[Any] = []

    def do_chat(self, params: ApiChatParams) -> Any:
        self.asked.append(params)
        return self.script(params)


class Returned(Scripted):
    def do_chat(self, params: ApiChatParams) -> Any:
        return {"error_code": 0, "text": WORDS[-1]}


class Yielded(Scripted):
    def do_chat(self, params: ApiChatParams) -> Any:
        for text in WORDS:
            yield {"error_code": 0, "text": text}


class Awaited(Scripted):
    async def do_chat(self, params: ApiChatParams) -> Any:
        await asyncio.sleep(0)
        return {"error_code": 0, "text": WORDS[-1]}


class YieldedAsync(Scripted):
    async def do_chat(self, params: ApiChatParams) -> Any:
        for text in WORDS:
            await asyncio.sleep(0)
            yield {"error_code": 0, "text": text}


class ReturnsCoroutine(Scripted):
    def do_chat(self, params: ApiChatParams) -> Any:
        return Awaited().do_chat(params)


class ReturnsAsyncGenerator(Scripted):
    def do_chat(self, params: ApiChatParams) -> Any:
        return YieldedAsync().do_chat(params)


class AwaitedIterator(Scripted):
    async def do_chat(self, params: ApiChatParams) -> Any:
        return Yielded().do_chat(params)


KINDS = [
    Returned,
    Yielded,
    Awaited,
    YieldedAsync,
    ReturnsCoroutine,
    ReturnsAsyncGenerator,
    AwaitedIterator,
]


@asynccontextmanager
async def served(made: ApiModelWorker, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    engine = ProviderEngine(made, name="example", **options)
    async with running(engine) as runtime, client_of(runtime) as client:
        yield client


def says(*texts: str) -> Any:
    return [{"role": "user", "content": text} for text in texts]


async def ask(client: openai.AsyncOpenAI, text: str = "hi", **more: Any) -> Any:
    messages = more.pop("messages", says(text))
    return await client.chat.completions.create(model="example", messages=messages, **more)


async def pieces(stream: Any) -> list[str]:
    chunks = [chunk async for chunk in stream]
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


async def test_every_kind_of_do_chat() -> None:
    await asyncio.gather(*(check_kind(kind) for kind in KINDS))


async def check_kind(kind: type[Scripted]) -> None:
    async with served(kind()) as client:
        answer = await ask(client, "12345678")
        assert answer.choices[0].message.content == "One two three."
        assert answer.choices[0].finish_reason == "stop"
        # Eight letters and the message's own four; fourteen letters.
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 4)
        got = await pieces(await ask(client, stream=True))
    whole = kind in (Returned, Awaited, ReturnsCoroutine)
    assert got == (["One two three."] if whole else ["One", " two", " three."])


async def test_what_do_chat_is_asked() -> None:
    made = Scripted(lambda params: {"error_code": 0, "text": "ok"})
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "### Heading\ntext", "name": "ann"},
        {"role": "assistant", "content": "yes"},
        {"role": "system", "content": "And kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    options = {"default_params": {"max_tokens": 50, "temperature": 0.1}}
    async with served(made, **options) as client:
        await ask(client, messages=messages, temperature=0.5, seed=3, stop="x", n=2, user="u")
        await ask(client, max_completion_tokens=7)
    first, other, second = made.asked
    assert first.messages == [*messages[:4], {"role": "user", "content": "a\nb"}]
    assert (first.temperature, first.top_p, first.max_tokens) == (0.5, 1.0, 50)
    assert (first.stop, first.user) == (["x"], "u")
    assert {first.seed, other.seed} == {3, 4}
    assert (first.version, first.api_key, first.own_key) == ("v1", KEY, "of the entry")
    assert first.worker_name == "example"
    assert (second.temperature, second.max_tokens) == (0.1, 7)
    assert not hasattr(second, "seed")
    assert KEY not in repr(first)


async def test_messages_are_validated_by_the_class() -> None:
    class Renaming(Scripted):
        def validate_messages(self, messages: Any) -> Any:
            return [message | {"role": message["role"].upper()} for message in messages]

    made = Renaming(lambda params: {"error_code": 0, "text": params.messages[0]["role"]})
    async with served(made) as client:
        assert (await ask(client)).choices[0].message.content == "USER"


async def test_error_codes() -> None:
    rows: list[tuple[Any, int, str]] = [
        (400, 400, "invalid_value"),
        ("400", 400, "invalid_value"),
        (401, 502, "upstream_auth_failed"),
        (40102, 502, "upstream_auth_failed"),
        (404, 404, "model_not_found"),
        (429, 429, "rate_limit_exceeded"),
        (42903, 429, "overloaded"),
        (40303, 400, "context_length_exceeded"),
        (500, 502, "upstream_failed"),
        (503, 503, "unavailable"),
        (504, 504, "upstream_timeout"),
        (50002, 500, "out_of_memory"),
        (77, 502, "upstream_failed"),
        ("odd", 502, "upstream_failed"),
    ]
    codes = iter([row[0] for row in rows])
    made = Scripted(lambda params: {"error_code": next(codes), "text": f"It failed: {KEY}."})
    async with served(made) as client:
        for _, status, error_code in rows:
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(client, stream=True)
            assert (caught.value.status_code, caught.value.code) == (status, error_code)
            if error_code != "upstream_auth_failed":
                assert "It failed: ***." in caught.value.message
            assert KEY not in caught.value.response.text


async def test_an_error_in_mid_stream() -> None:
    def script(params: Any) -> Iterator[Any]:
        yield {"error_code": 0, "text": "Well, "}
        yield {"error_code": 500, "text": "the vendor broke", "error": {"message": "x"}}

    async with served(Scripted(script)) as client:
        stream = aiter(await ask(client, stream=True))
        assert (await anext(stream)).choices[0].delta.role == "assistant"
        assert (await anext(stream)).choices[0].delta.content == "Well, "
        with pytest.raises(openai.APIError, match="the vendor broke"):
            await anext(stream)
        with pytest.raises(openai.APIStatusError, match="the vendor broke"):
            await ask(client)


async def test_exceptions_tell_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    def script(params: Any) -> Any:
        url = "https://v.example/chat?access_token=fetched-token-1"
        raise ValueError(f"{url} with {params.api_key}, Bearer another-token-2")

    async with served(Scripted(script)) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client)
    assert caught.value.status_code == 502
    told = caught.value.response.text
    assert "ValueError" in told
    assert "v.example" in caplog.text
    for secret in (KEY, "fetched-token-1", "another-token-2"):
        assert secret not in told + caplog.text


async def test_exceptions_that_say_more(caplog: pytest.LogCaptureFixture) -> None:
    def script(params: Any) -> Any:
        said = params.messages[-1]["content"]
        if said == "timeout":
            raise httpx.ReadTimeout("slow")
        if said == "long":
            raise ContextLengthExceeded("Too long.", param="messages")
        if said == "later":
            return {"error_code": 429, "text": "Not now.", "retry_after": 8}
        code, _, again = said.partition(" ")
        answer = httpx.Response(int(code), headers={"Retry-After": again} if again else {})
        raise httpx.HTTPStatusError("x", request=httpx.Request("POST", "http://v"), response=answer)

    async with served(Scripted(script)) as client:
        for said, status, again in (
            ("timeout", 504, None),
            ("long", 400, None),
            ("401", 502, None),
            ("429", 429, None),
            ("429 7", 429, "7"),
            ("503 Fri, 27 Nov 2026 12:00:00 GMT", 503, None),
            ("429 inf", 429, None),
            ("429 -1", 429, None),
            ("later", 429, "8"),
        ):
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(client, said)
            assert caught.value.status_code == status
            assert caught.value.response.headers.get("retry-after") == again
            if said.startswith(("429", "503")):
                assert f"The model's server answered {status}." in caught.value.message
    assert "Scripted.do_chat: the provider answered 429" in caplog.text


async def test_a_broken_contract_is_told() -> None:
    rows: list[tuple[list[Any], str]] = [
        (["just text"], "something else"),
        ([{"text": "no code"}], "something else"),
        ([{"error_code": 0, "text": 5}], "not a string"),
        ([{"error_code": 0, "text": "One"}, {"error_code": 0, "text": " two"}], "so far"),
        ([], "no answer"),
    ]
    given = iter([row[0] for row in rows])
    async with served(Scripted(lambda params: iter(next(given)))) as client:
        for _, told in rows:
            with pytest.raises(openai.APIStatusError, match=told) as caught:
                await ask(client)
            assert caught.value.status_code == 502
            assert "Scripted.do_chat" in caught.value.message


async def test_what_an_item_may_carry() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 12}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}

    def script(params: Any) -> Iterator[Any]:
        yield {"error_code": 0, "text": "", "reasoning_content": "Hm"}
        yield {"error_code": 0, "text": "Yes  ", "reasoning_content": "Hmm."}
        yield {"error_code": 0, "text": "Yes", "usage": usage, "finish_reason": "length"}
        if params.messages[-1]["content"] == "call":
            yield {"error_code": 0, "text": "", "tool_calls": [call], "finish_reason": None}

    class WithTools(Scripted):
        supports = frozenset({"tools"})

    made = WithTools(script)
    async with served(made) as client:
        answer = await ask(client)
        assert answer.choices[0].message.content == "Yes  "
        assert answer.choices[0].message.reasoning_content == "Hmm."
        assert answer.choices[0].finish_reason == "length"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 12)
        answer = await ask(client, "call", tools=[TOOL])
        found = answer.choices[0].message.tool_calls[0]
        assert (found.id, found.function.arguments) == ("c1", '{"a":1}')
    assert made.asked[1].tools[0]["function"]["name"] == "weather"


async def test_stop_strings_are_applied_here() -> None:
    closed = threading.Event()

    def script(params: Any) -> Iterator[Any]:
        try:
            for end in range(1, 100):
                yield {"error_code": 0, "text": "one two three four five"[:end]}
        finally:
            closed.set()

    async with served(Scripted(script)) as client:
        assert "".join(await pieces(await ask(client, stream=True, stop=" three"))) == "one two"
        assert await asyncio.to_thread(closed.wait, 5)
        answer = await ask(client, stop=["nothing", "fiv"])
        assert answer.choices[0].message.content == "one two three four "


async def test_what_a_class_does_not_support_is_refused() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
    ]
    rows: list[tuple[dict[str, Any], str]] = [
        ({"tools": [TOOL]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"messages": [{"role": "user", "content": parts}]}, "messages.0.content.1"),
        ({"messages": [{"role": "tool", "content": "5", "tool_call_id": "c"}]}, "messages.0"),
    ]
    async with served(Returned()) as client:
        for more, param in rows:
            with pytest.raises(openai.BadRequestError) as caught:
                await ask(client, **more)
            error: Any = caught.value.body
            assert (error["param"], error["code"]) == (param, "unsupported_parameter")


async def test_what_a_class_supports_is_passed() -> None:
    class Able(Scripted):
        supports = frozenset({"tools", "response_format", "logit_bias", "content_parts"})

    made = Able(lambda params: {"error_code": 0, "text": "ok"})
    messages: Any = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
        {"role": "tool", "content": "5", "tool_call_id": "c"},
    ]
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    async with served(made) as client:
        await ask(client, messages=messages, response_format=form, logit_bias={"5": 1})
        # A choice of "none" means that tools are not wanted.
        await ask(client, tools=[TOOL], tool_choice="none")
    assert made.asked[0].messages == messages
    assert made.asked[0].response_format["json_schema"]["schema"] == {"type": "object"}
    assert not hasattr(made.asked[1], "tools")


async def test_a_provider_that_blocks_holds_nobody_up() -> None:
    release = threading.Event()
    seen: list[str] = []

    def script(params: Any) -> Any:
        said = params.messages[-1]["content"]
        if said == "block":
            release.wait(20)
        seen.append(said)
        return {"error_code": 0, "text": "done"}

    async with served(Scripted(script), limit=2) as client:
        blocked = asyncio.create_task(ask(client, "block"))
        await asyncio.sleep(0.1)
        assert (await ask(client, "quick")).choices[0].message.content == "done"
        assert not blocked.done()
        release.set()
        await blocked
    assert seen == ["quick", "block"]


async def test_a_client_that_leaves_closes_the_generator() -> None:
    for kind in ("plain", "async"):
        closed = threading.Event()

        def plain(params: Any, closed: threading.Event = closed) -> Iterator[Any]:
            try:
                for end in range(1, 10_000):
                    time.sleep(0.005)
                    yield {"error_code": 0, "text": "x" * end}
            finally:
                closed.set()

        async def asynchronous(params: Any, closed: threading.Event = closed) -> AsyncIterator[Any]:
            try:
                yield {"error_code": 0, "text": "x"}
                await asyncio.sleep(60)
            finally:
                closed.set()

        async with served(Scripted(plain if kind == "plain" else asynchronous)) as client:
            stream = await ask(client, stream=True)
            await anext(aiter(stream))
            await stream.close()
            assert await asyncio.to_thread(closed.wait, 5)


async def test_a_provider_that_hangs_for_ever() -> None:
    release = threading.Event()
    made = Scripted(lambda params: release.wait(60))
    made.timeout = 0.2
    started = time.monotonic()
    async with served(made, limit=1) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(client)
        assert caught.value.status_code == 504
    # The worker stopped although the call has not returned.
    assert not release.is_set()
    assert time.monotonic() - started < 20
    release.set()


async def test_completions() -> None:
    class Continuing(Scripted):
        def do_completion(self, params: ApiCompletionParams) -> Any:
            yield {"error_code": 0, "text": f"{params.prompt} and so on"}

    async with served(Continuing()) as client:
        found = await client.completions.create(model="example", prompt=["a", "b"])
        assert [choice.text for choice in found.choices] == ["a and so on", "b and so on"]
        with pytest.raises(openai.BadRequestError, match="text only"):
            await client.completions.create(model="example", prompt=[1, 2])
    async with served(Returned()) as client:
        with pytest.raises(openai.BadRequestError, match="/v1/chat/completions"):
            await client.completions.create(model="example", prompt="a")


async def test_a_key_that_the_entry_lacks_is_an_empty_text() -> None:
    made = Scripted(lambda params: {"error_code": 0, "text": repr(params.api_key)})
    made.config = {}
    async with served(made) as client:
        assert (await ask(client)).choices[0].message.content == "''"


class Embedding(Scripted):
    DEFAULT_EMBED_MODEL = "embed-1"

    def do_embeddings(self, params: ApiEmbeddingsParams) -> Any:
        self.asked.append(params)
        if params.texts == ["refuse"]:
            return {"code": 400, "msg": f"not this, {KEY}"}
        if params.texts == ["one", "too", "few"]:
            return {"code": 200, "data": [[1.0]]}
        if params.texts == ["no numbers"]:
            return {"code": 200, "data": ["abc"]}
        return {"code": 200, "data": [[float(len(text))] for text in params.texts]}


class EmbeddingAsync(Embedding):
    async def do_embeddings(self, params: ApiEmbeddingsParams) -> Any:
        return super().do_embeddings(params)


@pytest.mark.parametrize("kind", [Embedding, EmbeddingAsync])
async def test_embeddings(kind: type[Embedding]) -> None:
    made = kind()
    async with served(made) as client:

        async def embed(texts: Any, **more: Any) -> Any:
            return await client.embeddings.create(model="example", input=texts, **more)

        found = await embed(["abcd", "ab"])
        assert [row.embedding for row in found.data] == [[4.0], [2.0]]
        assert found.usage.prompt_tokens == 2
        assert made.asked[0].embed_model == "embed-1"
        assert (made.asked[0].api_key, made.asked[0].to_query) == (KEY, False)
        for texts, more, status in (
            ("refuse", {}, 400),
            (["one", "too", "few"], {}, 502),
            ("no numbers", {}, 502),
            ([1, 2], {}, 400),
            ("a", {"dimensions": 3}, 400),
        ):
            with pytest.raises(openai.APIStatusError) as caught:
                await embed(texts, **more)
            assert caught.value.status_code == status
            assert KEY not in caught.value.response.text


async def test_no_embeddings() -> None:
    async with served(Returned()) as client:
        with pytest.raises(openai.BadRequestError, match="no embeddings"):
            await client.embeddings.create(model="example", input="a")


async def test_fastchats_routes() -> None:
    engine = ProviderEngine(Yielded())
    async with running(engine) as runtime:
        headers = {"authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(base_url=runtime.address, headers=headers) as http:
            conv = (await http.post("/worker_get_conv_template", json={})).json()["conv"]
            start, end = conv["roles"], conv["sep"]
            prompt = f"{start[0]}hello{end}{start[1]}"
            answer = await http.post("/worker_generate_stream", json={"prompt": prompt})
    frames = [frame for frame in answer.text.split("\0") if frame]
    assert 'One two three."' in frames[-1]


async def test_keys_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dev_opsgpt")
    script = {"error_code": 401, "text": f"bad key {KEY}"}
    async with served(Scripted(lambda params: script)) as client:
        with pytest.raises(openai.APIStatusError):
            await ask(client)
    assert "refused" in caplog.text
    assert KEY not in caplog.text
