"""The engine on random weights: what is promised of every model holds for this one."""

import asyncio
import gc
import math
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.protocol.errors import (
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    Unavailable,
    Unsupported,
)

from .answers import ADD, ask, chat, completion, finish, gather
from .random_model import CONTROL, VOCABULARY, write_model

NEVER_END = {"256": -100, "258": -100}


async def test_usage_and_finish_reason(engine: LlamaCppEngine) -> None:
    answer = await ask(engine, max_tokens=10, logit_bias=NEVER_END)
    assert answer.finish == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10
    assert answer.usage.prompt_tokens == await engine.count_tokens(chat("hi"))
    ended = await finish(engine, max_tokens=10, logit_bias={"258": 100})
    assert ended.finish == "stop"
    assert ended.content == ""


async def test_greedy_is_reproducible_under_load(engine: LlamaCppEngine) -> None:
    alone = await ask(engine, "tell", max_tokens=40, temperature=0)
    jobs = [ask(engine, "tell", max_tokens=40, temperature=0) for _ in range(8)]
    jobs += [ask(engine, f"noise {i}", max_tokens=40, seed=i) for i in range(12)]
    together = await asyncio.gather(*jobs)
    assert {answer.content for answer in together[:8]} == {alone.content}
    assert len({answer.content for answer in together[8:]}) == 12
    assert await engine.running() == 0


async def test_seed_and_index(engine: LlamaCppEngine) -> None:
    def text(seed: int, index: int) -> "asyncio.Task[str]":
        async def run() -> str:
            request = chat("hi", max_tokens=20, seed=seed, temperature=1.0)
            return (await gather(engine.chat(request, index=index))).content

        return asyncio.create_task(run())

    first, second = await text(7, 0), await text(7, 1)
    assert first != second
    assert await text(7, 0) == first
    assert await text(8, 0) == second  # seed + index
    assert await text(-1, 0) == await text(-1, 0)  # llama.cpp's own "random" is never meant
    assert await text(2**32 - 1, 0) == await text(2**32 - 1, 0)
    unseeded = [(await ask(engine, max_tokens=20)).content for _ in range(2)]
    assert unseeded[0] != unseeded[1]


async def test_sampling_fields_reach_the_model(engine: LlamaCppEngine) -> None:
    greedy = await finish(engine, max_tokens=20, temperature=0)
    assert (await finish(engine, max_tokens=20, temperature=2, top_k=1)).content == greedy.content
    assert (await finish(engine, max_tokens=20, temperature=2, top_p=0)).content == greedy.content
    assert (await finish(engine, max_tokens=20, temperature=2, min_p=1)).content == greedy.content
    forced = await finish(engine, max_tokens=5, logit_bias={"65": 100})
    assert forced.content == "AAAAA"
    shy = await finish(
        engine, max_tokens=30, temperature=0, logit_bias={"65": 30}, presence_penalty=2
    )
    assert shy.content.startswith("A")
    off = await finish(engine, max_tokens=20, temperature=2, top_k=-1, top_p=1, min_p=0, seed=1)
    zero = await finish(engine, max_tokens=20, temperature=2, top_k=0, top_p=1, min_p=0, seed=1)
    assert off.content == zero.content


async def test_default_params(model: Path) -> None:
    engine = LlamaCppEngine(
        LlamaOptions(path=model, context=512, parallel=1),
        default_params={"temperature": 0, "max_tokens": 7, "repetition_penalty": 1.0},
    )
    await engine.start()
    try:
        texts = {(await finish(engine)).content for _ in range(3)}
        assert len(texts) == 1
        answer = await finish(engine, logit_bias=NEVER_END)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 7
        longer = await finish(engine, logit_bias=NEVER_END, max_tokens=9)
        assert longer.usage is not None
        assert longer.usage.completion_tokens == 9
    finally:
        await engine.stop()


async def test_completions(engine: LlamaCppEngine) -> None:
    text = await finish(engine, "hi", max_tokens=8, temperature=0)
    ids = await finish(engine, [104, 105], max_tokens=8, temperature=0)
    assert text.content == ids.content
    nothing = await finish(engine, "hi", max_tokens=0, echo=True)
    assert (nothing.content, nothing.finish) == ("", "length")
    assert nothing.usage is not None
    assert (nothing.usage.prompt_tokens, nothing.usage.completion_tokens) == (2, 0)
    empty = await finish(engine, "", max_tokens=4, logit_bias=NEVER_END)
    assert empty.usage is not None
    assert empty.usage.completion_tokens == 4


async def test_logprobs(engine: LlamaCppEngine) -> None:
    ascii_only = {str(token): -100.0 for token in [*range(32), *range(127, VOCABULARY)]}
    answer = await ask(engine, max_tokens=12, logprobs=True, top_logprobs=3, logit_bias=ascii_only)
    assert len(answer.logprobs) == 12
    assert "".join(entry.token for entry in answer.logprobs) == answer.content
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top) == 3
        assert [top.logprob for top in entry.top] == sorted(t.logprob for t in entry.top)[::-1]
        assert sum(math.exp(top.logprob) for top in entry.top) <= 1.0001
    bare = await ask(engine, max_tokens=3, logprobs=True, logit_bias=ascii_only)
    assert [entry.top for entry in bare.logprobs] == [[], [], []]
    assert (await ask(engine, max_tokens=3)).logprobs == []
    older = await finish(engine, max_tokens=3, logprobs=2, logit_bias=ascii_only)
    assert [len(entry.top) for entry in older.logprobs] == [2, 2, 2]


async def test_the_context_is_the_limit(engine: LlamaCppEngine) -> None:
    assert engine.context_length == 2048
    last = await finish(engine, [65] * 2047)
    assert last.finish == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 1
    with pytest.raises(ContextLengthExceeded, match=r"2048 tokens.*2048") as full:
        await finish(engine, [65] * 2048)
    assert full.value.param == "prompt"
    with pytest.raises(ContextLengthExceeded, match="2048") as long:
        await ask(engine, "x" * 5000)
    assert long.value.param == "messages"
    with pytest.raises(ContextLengthExceeded):
        await finish(engine, "x" * 5000, max_tokens=0)
    endless = await finish(engine, [65] * 2000, logit_bias=NEVER_END)
    assert endless.finish == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"logit_bias": {"9999": 1}}, "logit_bias"),
        ({"prompt": [1, 9999]}, "prompt"),
    ],
)
async def test_completions_refused(
    engine: LlamaCppEngine, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        await finish(engine, **fields)
    assert error.value.param == param


async def test_any_number_of_tokens_may_be_asked_for(engine: LlamaCppEngine) -> None:
    answer = await finish(engine, max_tokens=2**70, logit_bias={"258": 100})
    assert answer.finish == "stop"


async def test_chats_refused(engine: LlamaCppEngine) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    with pytest.raises(Unsupported) as error:
        await ask(engine, [{"type": "text", "text": "see"}, image])
    assert error.value.param == "messages.0.content.1"
    with pytest.raises(Unsupported) as error:
        await ask(engine, modalities=["text", "audio"])
    assert error.value.param == "modalities"
    with pytest.raises(Unsupported) as error:
        await ask(engine, stop_token_ids=[5])
    assert error.value.param == "stop_token_ids"
    for arguments in ("{no", "[" * 100_000 + "]" * 100_000):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        with pytest.raises(InvalidRequest) as bad:
            await ask(engine, messages=[{"role": "assistant", "tool_calls": [call]}])
        assert bad.value.param == "messages.0.tool_calls.0.function.arguments"


async def test_messages_of_all_kinds(engine: LlamaCppEngine) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
        {"role": "user", "content": "好"},
    ]
    prompt = await engine._ready.planner.prompt(chat(messages=messages))
    assert prompt == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
        '<|im_start|>assistant\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n'
        "</tool_call><|im_end|>\n<|im_start|>tool\n7<|im_end|>\n"
        "<|im_start|>user\n好<|im_end|>\n<|im_start|>assistant\n"
    )
    assert await engine.count_tokens(chat(messages=messages)) == len(
        _without_control(prompt).encode()
    ) + sum(prompt.count(token) for token in CONTROL)


def _without_control(text: str) -> str:
    for token in CONTROL:
        text = text.replace(token, "")
    return text


async def test_options_of_the_template(tmp_path: Path) -> None:
    template = "{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}"
    path = write_model(tmp_path / "m.gguf", template=template)
    engine = LlamaCppEngine(LlamaOptions(path=path, context=256, parallel=1))
    await engine.start()
    try:
        options = {"mood": "glad"}
        more = await engine.count_tokens(chat("hi", chat_template_kwargs=options))
        assert more == await engine.count_tokens(chat("hi")) + len("glad")
        asked = await ask(engine, max_tokens=1, chat_template_kwargs=options)
        assert asked.usage is not None
        assert asked.usage.prompt_tokens == more
    finally:
        await engine.stop()


async def test_a_template_that_refuses(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].content == 'no' %}{{ raise_exception('roles must alternate') }}"
        "{% endif %}{{ messages[0].content }}"
    )
    path = write_model(tmp_path / "m.gguf")
    engine = LlamaCppEngine(LlamaOptions(path=path, context=512, chat_template=template))
    try:
        await engine.start()
        with pytest.raises(ApiError, match="alternate") as error:
            await ask(engine, "no")
        assert error.value.status == 400
        assert error.value.param == "messages"
        with pytest.raises(ApiError) as error:
            await engine.count_tokens(chat("no"))
        assert error.value.param == "messages"
    finally:
        await engine.stop()


async def test_count_tokens(engine: LlamaCppEngine) -> None:
    assert await engine.count_tokens("hi<|im_end|>") == 3
    assert await engine.count_tokens([1, 2, 3]) == 3
    assert await engine.count_tokens(chat("hi", tools=[ADD])) > await engine.count_tokens(
        chat("hi", tools=[ADD], tool_choice="none")
    )


async def test_twenty_requests_over_four_slots(engine: LlamaCppEngine) -> None:
    jobs = [ask(engine, f"number {i}", max_tokens=30, logit_bias=NEVER_END) for i in range(20)]
    busiest = 0

    async def watch() -> None:
        nonlocal busiest
        while True:
            busiest = max(busiest, await engine.running())
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*jobs)
    watching.cancel()
    assert all(a.usage and a.usage.completion_tokens == 30 for a in answers)
    assert 1 <= busiest <= 4


async def _idle(engine: LlamaCppEngine, within: float = 30) -> int:
    """Waits until no slot is at work; gives the most tokens of a prompt seen to be read."""
    most = 0
    async with asyncio.timeout(within):
        while True:
            slots = await engine._ready.server.get("/slots")
            if not any(slot["is_processing"] for slot in slots):
                return most
            most = max(most, *(slot.get("n_prompt_tokens_processed", 0) for slot in slots))
            await asyncio.sleep(0.01)


async def test_hanging_up_in_mid_stream_frees_the_slot(engine: LlamaCppEngine) -> None:
    steps = engine.chat(chat("hi", logit_bias=NEVER_END))
    async with aclosing(steps):
        await anext(steps)
        assert await engine.running() == 1
    await _idle(engine)
    # More hang-ups than there are slots: none is lost.
    for _ in range(12):
        request = completion("hi", logit_bias=NEVER_END)
        async with aclosing(engine.complete(request, "hi")) as steps:
            await anext(steps)
    assert (await ask(engine, max_tokens=3)).finish


async def test_hanging_up_during_a_long_prompt_frees_the_slot(tmp_path: Path) -> None:
    path = write_model(tmp_path / "slow.gguf", width=512, layers=4)
    engine = LlamaCppEngine(LlamaOptions(path=path, context=4096, parallel=1))
    await engine.start()
    try:
        task = asyncio.create_task(finish(engine, "x" * 4000, max_tokens=1))
        async with asyncio.timeout(30):
            while not await engine.running():
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _idle(engine) < 2000
    finally:
        await engine.stop()


async def test_stop_frees_and_start_loads_again(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = LlamaCppEngine(LlamaOptions(path=model, context=4096, parallel=2))
    await engine.start()
    await engine.stop()
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        await engine.start()
        first = await ask(engine, max_tokens=5, temperature=0)
        assert first.finish
        running = asyncio.create_task(finish(engine, logit_bias=NEVER_END))
        await asyncio.sleep(0.02)
        await engine.stop()
        with pytest.raises(ApiError):
            await running
        with pytest.raises(Unavailable):
            await ask(engine)
    assert "did not end" not in caplog.text
    gc.collect()
    # The pool of this event loop may have grown; llama.cpp's threads are gone.
    assert len(os.listdir("/proc/self/task")) <= before + 4


async def test_memory_does_not_grow(engine: LlamaCppEngine) -> None:
    async def many(count: int) -> None:
        for start in range(0, count, 20):
            await asyncio.gather(*(ask(engine, f"{start + i}", max_tokens=2) for i in range(20)))

    def resident() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    await many(400)
    before = resident()
    await many(1600)
    assert resident() - before < 24 * 2**20


async def test_progress_is_told_while_it_loads(model: Path) -> None:
    told: list[tuple[str, float | None]] = []
    engine = LlamaCppEngine(LlamaOptions(model, context=64))
    engine.progress = lambda doing, fraction: told.append((doing, fraction))
    await engine.start()
    try:
        assert told[0] == ("reading the file's head", None)
        fractions = [done for doing, done in told if doing == "loading the weights"]
        assert fractions
        assert all(done is not None and 0 <= done <= 1 for done in fractions)
    finally:
        await engine.stop()
