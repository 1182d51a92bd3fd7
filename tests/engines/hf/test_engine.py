"""The engine on random weights: what is promised of every model holds for this one."""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from dev_opsgpt.engines.hf.engine import HfEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    Unavailable,
)
from dev_opsgpt.protocol.openai import EmbeddingRequest
from dev_opsgpt.worker.engine import Delta, EngineError, TokenEnds

from ..answers import ADD, WEATHER, Answer, ask, chat, completion, finish, gather
from .tiny import CONTEXT, tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id
NEVER_END = {str(END): -100, str(TOKENIZER.bos_token_id): -100}
TEXT = "你好é🙂ñ漢字"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("chat"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[HfEngine]:
    """One for all: to start it takes longer than most tests."""
    engine = HfEngine(HfOptions(path=folder, parallel=4, threads=1))
    await engine.start()
    yield engine
    await engine.stop()


def schema(given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": given}}


async def test_greedy_is_as_generate_says(engine: HfEngine, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = TOKENIZER.encode("The controller")
    found = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0]
    expected = found[len(ids) :].tolist()
    answer = await finish(engine, "The controller", temperature=0, max_tokens=20, logprobs=0)
    assert answer.content == TOKENIZER.decode(expected, skip_special_tokens=True)
    messages = [{"role": "user", "content": "The controller"}]
    rendered = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    chatted = await ask(engine, "The controller", temperature=0, max_tokens=20)
    assert chatted.content == (await finish(engine, rendered, temperature=0, max_tokens=20)).content


async def test_usage_and_finish_reason(engine: HfEngine) -> None:
    answer = await ask(engine, max_tokens=10, logit_bias=NEVER_END)
    assert answer.finish == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10
    assert answer.usage.prompt_tokens == await engine.count_tokens(chat("hi"))
    ended = await finish(engine, max_tokens=10, logit_bias={str(END): 100})
    assert (ended.finish, ended.content) == ("stop", "")
    own = await finish(engine, max_tokens=10, logit_bias={"40": 100}, stop_token_ids=[40])
    assert (own.finish, own.content) == ("stop", "")
    assert isinstance(engine, TokenEnds)
    assert engine.ends_at([-1, 40, 99_999]) == [40]


async def test_a_shared_beginning_is_computed_once(engine: HfEngine) -> None:
    long = "a word " * 100
    first = await finish(engine, long, max_tokens=2, temperature=0)
    second = await finish(engine, long + "more", max_tokens=2)
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.cached_tokens == 0
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens


async def test_seed_and_index(engine: HfEngine) -> None:
    async def text(seed: int, index: int) -> str:
        request = chat("hi", max_tokens=20, seed=seed, temperature=1.0)
        return (await gather(engine.chat(request, index=index))).content

    first, second = await text(7, 0), await text(7, 1)
    assert first != second
    assert await text(7, 0) == first
    assert await text(8, 0) == second  # seed + index


async def test_many_at_once_are_as_alone(engine: HfEngine) -> None:
    alone = await ask(engine, "tell", max_tokens=30, temperature=0)
    jobs = [ask(engine, "tell", max_tokens=30, temperature=0) for _ in range(6)]
    jobs += [ask(engine, f"noise {i}", max_tokens=20 + i, seed=i) for i in range(6)]
    jobs += [ask(engine, "json", response_format=schema({"const": TEXT})) for _ in range(2)]
    together = await asyncio.gather(*jobs)
    assert {answer.content for answer in together[:6]} == {alone.content}
    assert {json.loads(answer.content) for answer in together[12:]} == {TEXT}
    assert engine.running == 0


@pytest.mark.parametrize(("logprobs", "stop"), [(False, None), (True, ["好好好", "\ufffd!"])])
async def test_characters_are_never_cut(
    engine: HfEngine, logprobs: bool, stop: list[str] | None
) -> None:
    whole = json.dumps(TEXT, ensure_ascii=False)
    fields: dict[str, Any] = {"response_format": schema({"const": TEXT}), "stop": stop}
    if logprobs:
        fields |= {"logprobs": True, "top_logprobs": 2}
    for limit in itertools.count(1):
        answer = await ask(engine, max_tokens=limit, **fields)
        assert whole.startswith(answer.content)
        assert all("\ufffd" not in delta.content for delta in answer.steps)
        if logprobs:
            shown = b"".join(bytes(entry.bytes) for entry in answer.logprobs)
            assert shown.decode() == answer.content
        if answer.finish == "stop":
            break
    assert answer.content == whole


async def test_stop_strings(engine: HfEngine) -> None:
    fields = {"temperature": 0, "max_tokens": 30, "logit_bias": NEVER_END}
    whole = await finish(engine, **fields)
    for start in range(1, 12, 3):
        stop = whole.content[start : start + 3]
        cut = await finish(engine, stop=stop, logprobs=1, **fields)
        assert cut.finish == "stop"
        assert cut.content == whole.content[: whole.content.find(stop)]
        assert "".join(entry.token for entry in cut.logprobs) == cut.content


async def test_logprobs(engine: HfEngine) -> None:
    fields = {"temperature": 0, "max_tokens": 8, "logit_bias": {}}
    answer = await ask(engine, logprobs=True, top_logprobs=3, **fields)
    assert answer.content == (await ask(engine, **fields)).content
    for entry in answer.logprobs:
        assert len(entry.top) == 3
        assert entry.logprob <= 0
        assert entry.top[0].bytes == entry.bytes
    bare = await ask(engine, logprobs=True, **fields)
    assert [entry.top for entry in bare.logprobs] == [[] for _ in bare.logprobs]
    assert (await ask(engine, **fields)).logprobs == []


async def test_json_schema_at_any_temperature(engine: HfEngine) -> None:
    given = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    asked = [
        ask(engine, response_format=schema(given), seed=seed, temperature=1.5) for seed in range(8)
    ]
    for answer in await asyncio.gather(*asked):
        assert answer.finish == "stop"
        assert set(json.loads(answer.content)) == {"name", "age"}
    cut = await ask(engine, response_format={"type": "json_object"}, max_tokens=5)
    assert cut.content.startswith("{")


@pytest.mark.parametrize("given", [{"type": "nonsense"}, {"$ref": "#/$defs/nowhere"}])
async def test_schemas_that_cannot_be_followed(engine: HfEngine, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        await ask(engine, response_format=schema(given))
    assert error.value.param == "response_format"
    tool = {
        "type": "function",
        "function": {"name": "t", "parameters": {"properties": {"a": given}}},
    }
    with pytest.raises(InvalidRequest) as error:
        await ask(engine, tools=[ADD, tool], tool_choice="required")
    assert error.value.param == "tools.1.function.parameters"


async def test_required_and_named_tools(engine: HfEngine) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    for seed in range(6):
        choice: Any = "required" if seed % 2 else named
        answer = await ask(
            engine, tools=[WEATHER, ADD], tool_choice=choice, seed=seed, temperature=1.5, stop="{"
        )
        assert (answer.finish, answer.content, len(answer.calls)) == ("tool_calls", "", 1)
        name, arguments = answer.calls[0]
        found = json.loads(arguments)
        if name == "add":
            assert all(isinstance(found[key], int) for key in ("a", "b"))
        else:
            assert choice == "required"
            assert len(found["city"]) <= 8


async def test_auto_and_none(engine: HfEngine) -> None:
    for choice in ("auto", "none"):
        answer = await ask(engine, tools=[WEATHER], tool_choice=choice, seed=1, max_tokens=20)
        assert answer.finish in ("stop", "length")
        assert answer.calls == []


async def test_json_or_calls(engine: HfEngine) -> None:
    form = schema({"enum": ["x", 5]})
    kinds = set()
    for seed in range(12):
        bias = {str(id_): 30.0 for id_ in TOKENIZER.encode("<")} if seed % 2 else {}
        answer = await ask(
            engine,
            tools=[WEATHER, ADD],
            response_format=form,
            seed=seed,
            temperature=1.5,
            logit_bias=bias,
            parallel_tool_calls=seed % 4 == 3,
            max_tokens=400,
        )
        kinds.add(answer.finish)
        if answer.finish == "stop":
            assert json.loads(answer.content) in ("x", 5)
            assert answer.calls == []
        else:
            assert (answer.finish, answer.content) == ("tool_calls", "")
            assert len(answer.calls) == 1 or seed % 4 == 3
            for name, arguments in answer.calls:
                assert set(json.loads(arguments)) == ({"city"} if name != "add" else {"a", "b"})
    assert kinds == {"stop", "tool_calls"}
    none = await ask(engine, tools=[ADD], tool_choice="none", response_format=schema({"const": 5}))
    assert none.content == "5"
    with pytest.raises(InvalidRequest) as error:
        await ask(engine, tools=[ADD], response_format=schema({"type": "nonsense"}))
    assert error.value.param == "response_format"


async def test_reasoning_is_told_apart_and_counted(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    opens = "{{ messages[0].content }}<think>\n"
    (folder / "chat_template.jinja").write_text(opens)
    engine = HfEngine(HfOptions(path=folder, threads=1))
    await engine.start()
    try:
        answer = await ask(engine, max_tokens=12, temperature=0, logit_bias=NEVER_END)
        assert answer.content == ""
        assert answer.reasoning
        assert answer.usage is not None
        assert answer.usage.reasoning_tokens == 12
        spoken = await ask(engine, response_format=schema({"const": 5}))
        assert (spoken.content, spoken.reasoning) == ("5", "")
    finally:
        await engine.stop()


async def test_completions(engine: HfEngine) -> None:
    ids = TOKENIZER.encode("The gateway")
    fields = {"temperature": 0, "max_tokens": 6, "logit_bias": NEVER_END}
    text = await finish(engine, "The gateway", **fields)
    assert (await finish(engine, ids, **fields)).content == text.content
    assert len((await finish(engine, "", **fields)).steps) > 1
    nothing = await finish(engine, ids, max_tokens=0)
    assert (nothing.content, nothing.finish) == ("", "length")
    assert nothing.usage is not None
    assert (nothing.usage.prompt_tokens, nothing.usage.completion_tokens) == (len(ids), 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"stop_token_ids": [99999]}, "stop_token_ids"),
        ({"prompt": [99999]}, "prompt"),
    ],
)
async def test_completions_refused(engine: HfEngine, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        await finish(engine, **fields)
    assert error.value.param == param


async def test_the_context_is_the_limit(engine: HfEngine) -> None:
    assert engine.context_length == CONTEXT
    for work in (ask(engine, "word " * CONTEXT), finish(engine, "word " * CONTEXT)):
        with pytest.raises(ContextLengthExceeded) as error:
            await work
        assert str(CONTEXT) in error.value.message
        assert error.value.param in ("messages", "prompt")
    full = await finish(engine, [70] * (CONTEXT - 3), logit_bias=NEVER_END)
    assert full.usage is not None
    assert (full.finish, full.usage.completion_tokens) == ("length", 3)
    with pytest.raises(ContextLengthExceeded):
        await finish(engine, [70] * CONTEXT)


class Breaks:
    """A constraint that fails after a few tokens."""

    done = False

    def __init__(self) -> None:
        self.left = 3

    def mask(self) -> None:
        if not self.left:
            raise InternalError("The grammar broke.")

    def accept(self, token: int) -> None:
        self.left -= 1


async def test_an_error_half_way_is_one_request_s(
    engine: HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = await ask(engine, "tell", max_tokens=30, temperature=0, logit_bias=NEVER_END)

    async def constraint(*_: Any) -> Breaks:
        return Breaks()

    monkeypatch.setattr(engine._ready.grammars, "constraint", constraint)
    other = asyncio.create_task(
        ask(engine, "tell", max_tokens=30, temperature=0, logit_bias=NEVER_END)
    )
    seen: list[Delta] = []

    async def listen() -> None:
        fields = {"response_format": {"type": "json_object"}, "logit_bias": NEVER_END}
        async with aclosing(engine.chat(chat(**fields))) as steps:
            async for delta in steps:
                seen.append(delta)

    with pytest.raises(InternalError):
        await listen()
    assert all(delta.finish_reason is None for delta in seen)
    assert (await other).content == alone.content


async def test_hanging_up_takes_the_sequence_out(engine: HfEngine) -> None:
    for _ in range(8):
        async with aclosing(engine.chat(chat("tell", logit_bias=NEVER_END))) as steps:
            await anext(steps)
            assert engine.running >= 1
    async with asyncio.timeout(30):
        while engine.running:
            await asyncio.sleep(0.01)
    assert (await ask(engine, max_tokens=2, logit_bias=NEVER_END)).finish == "length"


async def test_hanging_up_before_the_first_token(engine: HfEngine) -> None:
    tasks = [asyncio.create_task(ask(engine, "word " * 300)) for _ in range(12)]
    async with asyncio.timeout(30):
        while not engine.running:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while engine.running:
            await asyncio.sleep(0.01)


async def embed(engine: HfEngine, given: Any, **fields: Any) -> tuple[list[list[float]], int]:
    request = EmbeddingRequest.model_validate({"model": "m", "input": given, **fields})
    return await engine.embed(request.inputs, request)


async def test_embeddings(engine: HfEngine) -> None:
    # While the batcher is at work, in the same layers.
    busy = asyncio.create_task(ask(engine, "tell", max_tokens=60, temperature=0))
    vectors, tokens = await embed(engine, ["one", "two words"])
    together = await busy
    assert together.content == (await ask(engine, "tell", max_tokens=60, temperature=0)).content
    assert tokens == sum(await asyncio.gather(*map(engine.count_tokens, ["one", "two words"])))
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in vectors)
    assert (await embed(engine, "one"))[0][0] == pytest.approx(vectors[0], abs=1e-5)
    short = (await embed(engine, "one", dimensions=8))[0][0]
    assert len(short) == 8
    assert math.isclose(math.hypot(*short), 1, rel_tol=1e-5)
    for given, fields, param in (
        (["a", ""], {}, "input.1"),
        ("", {}, "input"),
        ("a", {"dimensions": 9999}, "dimensions"),
        ("word " * CONTEXT, {}, "input"),
        ([99999], {}, "input"),
    ):
        with pytest.raises(InvalidRequest) as error:
            await embed(engine, given, **fields)
        assert error.value.param == param


async def test_embeddings_share_the_weights(tmp_path: Path) -> None:
    """Those that the batcher has arranged for the processor, where it does that, too."""
    folder = tiny_llama(tmp_path, dtype="bfloat16")
    engine = HfEngine(HfOptions(path=folder, threads=1, dtype="bfloat16"))
    await engine.start()
    try:
        body = engine._ready.embedder._body
        own = engine._ready.loaded.model.base_model
        assert {id(one) for one in body.parameters()} == {id(one) for one in own.parameters()}
        (vector,), _ = await embed(engine, "The gateway")
    finally:
        await engine.stop()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").base_model
    states = model(torch.tensor([TOKENIZER.encode("The gateway")])).last_hidden_state
    expected = states[0].float().mean(dim=0)
    assert math.dist(vector, (expected / expected.norm()).tolist()) < 0.03


async def test_count_tokens(engine: HfEngine) -> None:
    assert await engine.count_tokens([1, 2, 3]) == 3
    assert await engine.count_tokens("The gateway") == len(TOKENIZER.encode("The gateway"))


async def test_default_params(folder: Path) -> None:
    options = HfOptions(path=folder, threads=1)
    wrong = HfEngine(options, default_params={"temprature": 1})
    with pytest.raises(EngineError, match="temprature"):
        await wrong.start()
    engine = HfEngine(options, default_params={"max_tokens": 3, "temperature": 0})
    await engine.start()
    try:
        answers = [await ask(engine, logit_bias=NEVER_END) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert answers[0].usage is not None
        assert answers[0].usage.completion_tokens == 3
    finally:
        await engine.stop()


async def test_what_fails_after_loading_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("no kernel\nfor this device")

    monkeypatch.setattr("dev_opsgpt.engines.hf.engine.StepBatcher.start", fail)
    with pytest.raises(EngineError, match=r"RuntimeError: no kernel$"):
        await HfEngine(HfOptions(path=folder, threads=1)).start()


async def test_stop_and_start(folder: Path) -> None:
    engine = HfEngine(HfOptions(path=folder, threads=1))
    told: list[float] = []
    engine.progress = lambda text, done: told.append(done)
    await engine.start()
    assert told
    assert engine.abilities.tools
    assert engine.abilities.json_output
    steps = engine.chat(chat("tell", logit_bias=NEVER_END))
    await anext(steps)
    await engine.stop()
    with pytest.raises(Unavailable):
        async for _ in steps:
            pass
    with pytest.raises(Unavailable):
        await ask(engine)
    assert engine.context_length == 0
    await engine.start()
    assert isinstance(await ask(engine, max_tokens=2), Answer)
    with pytest.raises(EngineError, match="already"):
        await engine.start()
    await gather(engine.complete(completion(max_tokens=1), "x"))
    await engine.stop()
