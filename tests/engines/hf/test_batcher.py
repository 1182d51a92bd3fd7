"""The batcher on tiny models, against the models' own ``generate``."""

import asyncio
import copy
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray

from dev_opsgpt.engines.hf.batcher import StepBatcher
from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.sequence import Sampling, Token
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    OutOfMemory,
    Unavailable,
)

from . import attentions as tiny

MODEL = tiny.llama()


@asynccontextmanager
async def started(
    model: Any = None, context: int = tiny.CONTEXT, **given: Any
) -> AsyncIterator[StepBatcher]:
    given = {"parallel": 4, "prefill_tokens": 24, "cache_tokens": 1024, **given}
    loaded = tiny.loaded(copy.deepcopy(model or MODEL), context)
    batcher = StepBatcher(loaded, **given)
    await batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


async def answer(batcher: StepBatcher, prompt: list[int], sampling: Sampling) -> list[Token]:
    return [token async for token in batcher.generate(prompt, sampling)]


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens if token.id is not None]


def greedy(count: int, **given: Any) -> Sampling:
    return Sampling(count, temperature=0.0, **given)


def some(source: random.Random, least: int, most: int) -> list[int]:
    return [source.randrange(1, tiny.VOCABULARY) for _ in range(source.randrange(least, most))]


async def free_again(batcher: StepBatcher) -> None:
    """Watches until the thread has let go of everything but the states that it keeps."""
    scheduler = batcher._scheduler
    async with asyncio.timeout(30):
        while not scheduler.empty or (
            scheduler._pool.available + scheduler._ended.blocks < scheduler._pool.count
        ):
            await asyncio.sleep(0.001)
    if scheduler._states:
        assert len(batcher._runner._states) == len(scheduler._ended)  # type: ignore[attr-defined]
    assert batcher.running == 0


@pytest.mark.parametrize("name", tiny.ALL)
async def test_greedy_is_what_generate_gives_while_others_join_and_leave(name: str) -> None:
    model = tiny.ALL[name]()
    source = random.Random(name)
    shared = some(source, 45, 46)
    one_by_one = asyncio.Lock()  # RecurrentGemma keeps a sequence's state in its layers

    async def one(batcher: StepBatcher, number: int) -> None:
        await asyncio.sleep(source.random() * 0.1)
        prompt = [*shared[: source.randrange(46)], *some(source, 1, 70)]
        if number % 4 == 3:  # one that goes away
            answering = batcher.generate(prompt, greedy(200))
            for _ in range(source.randrange(1, 6)):
                await anext(answering)
            await answering.aclose()
            return
        count = source.randrange(1, 30)
        found = await answer(batcher, prompt, greedy(count, logprobs=2))
        async with one_by_one:
            expected, logits = await asyncio.to_thread(tiny.generate, model, prompt, count)
        assert ids(found) == expected
        assert [token.finish for token in found] == [None] * (count - 1) + ["length"]
        logprobs = torch.log_softmax(logits, -1)
        for token, row in zip(found, logprobs, strict=True):
            assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
            assert [value for _, value in token.top] == pytest.approx(
                row.topk(2)[0].tolist(), abs=1e-4
            )

    async with started(model, cache_tokens=512) as batcher:
        assert batcher._runner.states == (name in tiny.APART)
        assert batcher._runner.whole_prompts == (name in tiny.WHOLE)
        assert not batcher._runner.one_at_a_time
        await asyncio.gather(*(one(batcher, number) for number in range(14)))
        await free_again(batcher)


async def test_a_prompt_of_one_token_begins_with_nothing_of_others() -> None:
    """RecurrentGemma takes one token for a step that goes on, from what is in its layers."""
    expected = tiny.generate(tiny.recurrent_gemma(), [5], 6)[0]
    async with started(tiny.recurrent_gemma()) as batcher:
        for _ in range(2):
            assert ids(await answer(batcher, [5], greedy(6))) == expected
            await answer(batcher, [7, 8, 9], greedy(3))


async def test_xlnet_keeps_what_its_generate_keeps() -> None:
    """Its memories are named otherwise, and what it says with them is not what it says without."""
    config = hf.XLNetConfig(
        vocab_size=tiny.VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48,
        initializer_range=0.3, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = tiny._made(config)
    prompts = [some(random.Random(n), 40, 60) for n in range(3)]
    async with started(model) as batcher:
        assert batcher._runner.one_at_a_time
        answers = await asyncio.gather(*(answer(batcher, one, greedy(25)) for one in prompts))
    for prompt, found in zip(prompts, answers, strict=True):
        assert ids(found) == tiny.generate(model, prompt, 25)[0]


@pytest.mark.parametrize("name", tiny.APART)
async def test_what_was_computed_is_not_computed_again_for_each_token(name: str) -> None:
    async with started(tiny.ALL[name](), prefill_tokens=8) as batcher:
        sizes = watch_sizes(batcher)
        await answer(batcher, list(range(1, 21)), greedy(5))
        chunks = [20] if name in tiny.WHOLE else [8, 8, 4]
        assert sizes == [*chunks, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["bloom", "mamba2", "qwen3_next"])
async def test_the_next_turn_goes_on_from_the_state_of_the_last(name: str) -> None:
    model = tiny.ALL[name]()
    source = random.Random(8)
    prompt, other = some(source, 40, 50), some(source, 40, 50)
    async with started(model, parallel=2) as batcher:
        first = await answer(batcher, prompt, greedy(10))
        assert len(await answer(batcher, other, greedy(3))) == 3
        turn = [*prompt, *ids(first), *some(source, 5, 9)]
        sizes = watch_sizes(batcher)
        found = await answer(batcher, turn, greedy(20))
        assert found[0].cached == len(prompt) + 9
        assert sizes[0] == len(turn) - len(prompt) - 9
        assert ids(found) == tiny.generate(model, turn, 20)[0]
        # It has gone on: nothing stands for its beginning any more.
        assert (await answer(batcher, turn, greedy(1)))[0].cached == 0
        # Of two that run at once no third state is kept.
        await asyncio.gather(*(answer(batcher, [n, *other], greedy(3)) for n in (1, 2, 3)))
        assert len(batcher._runner._states) <= 2  # type: ignore[attr-defined]


def watch_sizes(batcher: StepBatcher) -> list[int]:
    """The tokens of each forward from now on."""
    sizes: list[int] = []
    model = batcher._loaded.model
    model.register_forward_pre_hook(
        lambda _, __, given: sizes.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    return sizes


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
async def test_a_shared_beginning_is_not_computed_again(name: str) -> None:
    model = tiny.ALL[name]()
    source = random.Random(1)
    system, asks = some(source, 70, 71), [some(source, 5, 30) for _ in range(3)]
    async with started(model) as batcher:
        first = await answer(batcher, [*system, *asks[0]], greedy(20))
        assert first[0].cached == 0
        for ask in asks[1:]:
            found = await answer(batcher, [*system, *ask], greedy(20))
            assert found[0].cached == 70 // BLOCK * BLOCK
            assert ids(found) == tiny.generate(model, [*system, *ask], 20)[0]
        # The next turn of a conversation: prompt and answer are there, but for its last token.
        turn = [*system, *asks[0], *ids(first), *asks[1]]
        found = await answer(batcher, turn, greedy(20))
        assert found[0].cached == (70 + len(asks[0]) + 19) // BLOCK * BLOCK
        assert ids(found) == tiny.generate(model, turn, 20)[0]
        assert [token.cached for token in found[1:]] == [0] * 19


async def test_what_outgrows_the_store_is_computed_again() -> None:
    source = random.Random(2)
    prompts = [some(source, 20, 40) for _ in range(4)]
    async with started(cache_tokens=20 * BLOCK) as batcher:
        forgotten = []
        plan = batcher._scheduler.plan

        def watched() -> Any:
            found = plan()
            forgotten.extend(found.preempted)
            return found

        batcher._scheduler.plan = watched  # type: ignore[method-assign]
        answers = await asyncio.gather(*(answer(batcher, one, greedy(120)) for one in prompts))
        assert forgotten
        for prompt, found in zip(prompts, answers, strict=True):
            assert ids(found) == tiny.generate(MODEL, prompt, 120)[0]
            assert found[0].cached == 0
        await free_again(batcher)


async def test_the_context_bounds_prompt_and_answer() -> None:
    async with started(context=50) as batcher:
        found = await answer(batcher, list(range(1, 41)), greedy(100))
        assert len(ids(found)) == 10
        assert found[-1].finish == "length"
        with pytest.raises(ContextLengthExceeded, match="50"):
            await answer(batcher, list(range(1, 51)), greedy(1))


async def test_a_store_smaller_than_the_context_bounds_them_too() -> None:
    async with started(cache_tokens=4 * BLOCK) as batcher:
        found = await answer(batcher, list(range(1, 31)), greedy(1000))
        assert len(ids(found)) == 4 * BLOCK - 30
        with pytest.raises(ContextLengthExceeded):
            await answer(batcher, list(range(1, 4 * BLOCK + 1)), greedy(1))


@pytest.mark.parametrize(
    ("prompt", "given", "param"),
    [([], {}, "prompt"), ([1, 199], {}, "prompt"), ([-1], {}, "prompt"),
     ([1], {"logit_bias": {199: 1.0}}, "logit_bias")],
)  # fmt: skip
async def test_what_the_model_has_no_token_for(
    prompt: list[int], given: dict[str, Any], param: str
) -> None:
    async with started() as batcher:
        with pytest.raises(InvalidRequest) as raised:
            await answer(batcher, prompt, greedy(1, **given))
        assert raised.value.param == param
        assert batcher.running == 0


async def test_an_end_token_ends_and_is_no_token() -> None:
    expected = tiny.generate(MODEL, [5, 6, 7], 12)[0]
    end = expected[6]
    async with started() as batcher:
        found = await answer(batcher, [5, 6, 7], greedy(12, end_tokens=frozenset({end})))
    assert ids(found) == expected[: expected.index(end)]
    assert (found[-1].id, found[-1].finish) == (None, "stop")


async def test_no_tokens_asked_for_are_none() -> None:
    async with started() as batcher:
        assert await answer(batcher, [5], greedy(0)) == [Token(None, finish="length")]


class Counting:
    """A constraint: ascending tokens from 10 on, five of them."""

    def __init__(self, last: int = 14) -> None:
        self.next, self.last = 10, last

    def mask(self) -> NDArray[np.int32] | None:
        words = np.zeros(-(-tiny.VOCABULARY // 32), np.uint32)
        words[self.next // 32] = 1 << self.next % 32
        return words.view(np.int32)

    def accept(self, token: int) -> None:
        assert token == self.next
        self.next += 1

    @property
    def done(self) -> bool:
        return self.next > self.last


async def test_a_constraint_is_followed_to_its_end_and_by_nobody_else() -> None:
    async with started() as batcher:

        async def bound() -> list[Token]:
            return [t async for t in batcher.generate([1, 2], Sampling(50, seed=1), Counting())]

        found, free = await asyncio.gather(bound(), answer(batcher, [5, 6, 7], greedy(12)))
    assert ids(found) == [10, 11, 12, 13, 14]
    assert (found[-1].id, found[-1].finish) == (None, "stop")
    assert ids(free) == tiny.generate(MODEL, [5, 6, 7], 12)[0]


async def test_a_constraint_cut_short_by_max_tokens_ends_by_length() -> None:
    async with started() as batcher:
        found = [t async for t in batcher.generate([1], Sampling(3), Counting())]
    assert [token.finish for token in found] == [None, None, "length"]


class Broken(Counting):
    def mask(self) -> NDArray[np.int32] | None:
        if self.next == 12:
            raise ValueError("no grammar")
        return super().mask()


class Shut(Counting):
    def mask(self) -> NDArray[np.int32] | None:
        found = super().mask()
        return found if found is None or self.next < 12 else np.zeros_like(found)


async def test_a_constraint_that_fails_ends_its_sequence_alone() -> None:
    async with started() as batcher:

        async def bound() -> list[Token]:
            return [t async for t in batcher.generate([1, 2], Sampling(50), Broken())]

        failed, free = await asyncio.gather(
            bound(), answer(batcher, [5, 6, 7], greedy(30)), return_exceptions=True
        )
        assert isinstance(failed, InternalError)
        assert isinstance(free, list)
        assert ids(free) == tiny.generate(MODEL, [5, 6, 7], 30)[0]


async def test_a_constraint_that_allows_nothing_ends_there() -> None:
    async with started() as batcher:
        found = [t async for t in batcher.generate([1], Sampling(50), Shut())]
    assert ids(found) == [10, 11]
    assert (found[-1].id, found[-1].finish) == (None, "stop")


@pytest.mark.parametrize("name", ["llama", "mamba"])
async def test_a_seed_gives_the_same_beside_others(name: str) -> None:
    source = random.Random(4)
    sampling = Sampling(25, seed=99, temperature=1.3, top_p=0.9, presence_penalty=0.3)
    async with started(tiny.ALL[name]()) as batcher:
        alone = ids(await answer(batcher, [4, 5, 6], sampling))
        beside, *_ = await asyncio.gather(
            answer(batcher, [4, 5, 6], sampling),
            *(answer(batcher, some(source, 1, 60), Sampling(20)) for _ in range(5)),
        )
        assert ids(beside) == alone
        other = await answer(batcher, [4, 5, 6], Sampling(25, seed=98, temperature=1.3))
        assert ids(other) != alone


@pytest.mark.parametrize("name", ["llama", "mamba"])
async def test_closing_takes_a_sequence_out_before_the_next_step(name: str) -> None:
    async with started(tiny.ALL[name]()) as batcher:
        seen: list[list[Any]] = []
        go = threading.Semaphore(0)
        run = batcher._runner.run

        def stepwise(works: Any) -> Any:
            go.acquire()
            seen.append([work.sequence for work in works])
            return run(works)

        batcher._runner.run = stepwise  # type: ignore[method-assign]
        leaving = batcher.generate([1, 2, 3], greedy(100))
        staying = batcher.generate([4, 5, 6], greedy(3))
        first = asyncio.ensure_future(anext(leaving))
        second = asyncio.ensure_future(anext(staying))
        go.release(3)
        await asyncio.gather(first, second)
        await leaving.aclose()
        assert batcher.running == 1
        before = len(seen)
        go.release(100)
        async for _ in staying:
            pass
        # One step may have been under way.
        assert all(len(step) == 1 for step in seen[before + 1 :])
        await free_again(batcher)


async def test_one_that_waits_can_go_too() -> None:
    async with started(parallel=1) as batcher:
        busy = batcher.generate([1, 2, 3], greedy(200))
        await anext(busy)
        waiting = asyncio.ensure_future(answer(batcher, [3, 4], greedy(5)))
        while batcher.running < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await busy.aclose()
        await free_again(batcher)


def failing(batcher: StepBatcher, fault: Callable[[Any], Exception | None]) -> None:
    run = batcher._runner.run

    def perhaps(works: Any) -> Any:
        error = fault(works)
        if error is not None:
            raise error
        return run(works)

    batcher._runner.run = perhaps  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["llama", "mamba"])
async def test_a_fault_ends_those_at_fault_and_no_others(name: str) -> None:
    model = tiny.ALL[name]()
    async with started(model) as batcher:

        def fault(works: Any) -> Exception | None:
            bad = any(work.sequence.tokens[0] == 66 and work.start > 3 for work in works)
            return RuntimeError("a bad day") if bad else None

        failing(batcher, fault)
        bad, good, late = await asyncio.gather(
            answer(batcher, [66, 2], greedy(30)),
            answer(batcher, [5, 6, 7], greedy(30)),
            answer(batcher, [8, 9], greedy(10)),
            return_exceptions=True,
        )
        assert isinstance(bad, InternalError)
        assert "RuntimeError" in bad.message
        assert "bad day" not in bad.message
        assert isinstance(good, list)
        assert isinstance(late, list)
        assert ids(good) == tiny.generate(model, [5, 6, 7], 30)[0]
        assert ids(late) == tiny.generate(model, [8, 9], 10)[0]
        await free_again(batcher)


async def test_a_step_that_memory_is_short_for_goes_in_parts() -> None:
    async with started() as batcher:
        failing(
            batcher,
            lambda works: torch.OutOfMemoryError("short") if len(works) > 1 else None,
        )
        answers = await asyncio.gather(
            *(answer(batcher, [first, 6], greedy(9)) for first in (1, 2, 3))
        )
        for first, found in zip((1, 2, 3), answers, strict=True):
            assert ids(found) == tiny.generate(MODEL, [first, 6], 9)[0]


async def test_a_sequence_that_memory_is_short_for_is_told_so() -> None:
    async with started() as batcher:
        error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        failing(batcher, lambda works: error)
        with pytest.raises(OutOfMemory):
            await answer(batcher, [1, 2], greedy(5))


async def test_a_fault_of_the_batcher_ends_everybody_and_it_goes_on() -> None:
    async with started() as batcher:
        plan = batcher._scheduler.plan

        def broken() -> Any:
            batcher._scheduler.plan = plan  # type: ignore[method-assign]
            raise KeyError("lost")

        batcher._scheduler.plan = broken  # type: ignore[method-assign]
        with pytest.raises(InternalError, match="KeyError"):
            await answer(batcher, [1, 2], greedy(5))
        assert len(await answer(batcher, [1, 2], greedy(5))) == 5
        await free_again(batcher)


async def test_a_model_that_does_not_run_at_all_is_said_at_start() -> None:
    loaded = tiny.loaded(copy.deepcopy(MODEL))
    loaded.model.lm_head = None
    batcher = StepBatcher(loaded, parallel=1)
    with pytest.raises(TypeError):
        await batcher.start()
    with pytest.raises(Unavailable):
        await answer(batcher, [1, 2], greedy(5))
    await batcher.stop()


async def test_values_that_are_no_numbers_end_a_sequence_and_poison_no_other() -> None:
    async with started() as batcher:
        run = batcher._runner.run
        broken = True

        def spoiled(works: Any) -> Any:
            ends, logits = run(works)
            return ends, logits * float("nan") if broken else logits

        batcher._runner.run = spoiled  # type: ignore[method-assign]
        with pytest.raises(InternalError, match="numbers"):
            await answer(batcher, [1, 2], greedy(5))
        broken = False
        found = await answer(batcher, [1, 2], greedy(5))
        assert ids(found) == tiny.generate(MODEL, [1, 2], 5)[0]


async def test_stopping_ends_every_sequence_and_gives_the_model_back() -> None:
    loaded = tiny.loaded(copy.deepcopy(MODEL))
    before = loaded.model.config._attn_implementation
    batcher = StepBatcher(loaded, parallel=1, cache_tokens=512)
    with pytest.raises(Unavailable):
        await answer(batcher, [1], greedy(1))
    await batcher.start()
    answering = [asyncio.ensure_future(answer(batcher, [n, 2], greedy(250))) for n in (1, 2)]
    while batcher.running < 2:
        await asyncio.sleep(0)
    await batcher.stop()
    for found in await asyncio.gather(*answering, return_exceptions=True):
        assert isinstance(found, Unavailable)
    assert batcher.running == 0
    assert not any(thread.name == "batcher" for thread in threading.enumerate())
    assert loaded.model.config._attn_implementation == before
    with pytest.raises(Unavailable):
        await answer(batcher, [1], greedy(1))
    assert tiny.generate(loaded.model, [1, 2], 5) is not None
    await batcher.start()
    assert ids(await answer(batcher, [1, 2], greedy(5))) == tiny.generate(MODEL, [1, 2], 5)[0]
    await batcher.stop()


async def test_a_newcomer_has_its_first_token_within_two_steps_of_long_prompts() -> None:
    async with started(cache_tokens=4096, parallel=8) as batcher:
        steps = 0
        run = batcher._runner.run

        def counted(works: Any) -> Any:
            nonlocal steps
            steps += 1
            return run(works)

        batcher._runner.run = counted  # type: ignore[method-assign]
        source = random.Random(6)
        others = [
            asyncio.ensure_future(answer(batcher, some(source, 180, 200), greedy(40)))
            for _ in range(4)
        ]
        while steps < 3:
            await asyncio.sleep(0)
        before = steps
        await anext(newcomer := batcher.generate([1, 2, 3], greedy(2)))
        assert steps - before <= 2
        await newcomer.aclose()
        await asyncio.gather(*others)


async def test_the_event_loop_goes_on_while_the_model_computes() -> None:
    async with started() as batcher:
        go = threading.Event()
        run = batcher._runner.run

        def held(works: Any) -> Any:
            go.wait()
            return run(works)

        batcher._runner.run = held  # type: ignore[method-assign]
        answering = asyncio.ensure_future(answer(batcher, [1, 2], greedy(3)))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not answering.done()
        go.set()
        assert len(await answering) == 3


async def test_half_precision_runs_batched() -> None:
    model = copy.deepcopy(MODEL).to(torch.bfloat16)
    async with started(model) as batcher:
        assert not batcher._runner.whole_prompts
        assert len(await answer(batcher, [1, 2, 3], greedy(8))) == 8
