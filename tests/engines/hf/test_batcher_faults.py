"""What goes wrong in the batcher ends those it belongs to, and leaves nothing to the others."""

import asyncio
import math
import random
from typing import Any

import pytest
import torch

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool
from dev_opsgpt.engines.hf.sequence import Sampling
from dev_opsgpt.protocol.errors import InternalError

from . import attentions as tiny
from .test_batcher import MODEL, Counting, answer, failing, free_again, greedy, ids, some, started

BAD = 66
"""A token that the spoiled model has no numbers for."""


async def ends_badly(batcher: Any, prompt: list[int], sampling: Sampling) -> None:
    with pytest.raises(InternalError, match="numbers"):
        await answer(batcher, prompt, sampling)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_oss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_keys_that_are_no_numbers_reach_nobody_else(name: str, value: float) -> None:
    model = tiny.ALL[name]()
    source = random.Random(3)
    prompts = [some(source, 2, 60) for _ in range(12)]
    answers = [(one, tiny.generate(model, one, 12)[0]) for one in prompts]
    good = [one for one in answers if BAD not in one[0] + one[1]][:6]
    async with started(model, cache_tokens=20 * BLOCK) as batcher:
        weight = batcher._loaded.model.get_input_embeddings().weight
        weight.data[BAD] = value
        for _ in range(3):
            found, *_ = await asyncio.gather(
                asyncio.gather(*(answer(batcher, prompt, greedy(12)) for prompt, _ in good)),
                *(ends_badly(batcher, [*prompt, BAD], greedy(5)) for prompt, _ in good[:3]),
            )
            assert [ids(tokens) for tokens in found] == [expected for _, expected in good]
        await free_again(batcher)


async def test_what_failed_is_not_taken_over() -> None:
    async with started() as batcher:
        weight = batcher._loaded.model.get_input_embeddings().weight
        before = weight.data[BAD].clone()
        prompt = [BAD, *range(1, 40)]
        weight.data[BAD] = math.nan
        await ends_badly(batcher, prompt, greedy(5))
        weight.data[BAD] = before
        found = await answer(batcher, prompt, greedy(5))
        assert found[0].cached == 0
        assert ids(found) == tiny.generate(MODEL, prompt, 5)[0]


async def test_a_step_that_is_repeated_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(20, seed=5, temperature=1.5)
    async with started() as batcher:
        expected = [ids(await answer(batcher, [n, 6], sampling)) for n in (1, 2)]
        read = torch.Tensor.cpu

        def fails_together(report: torch.Tensor) -> torch.Tensor:
            if len(report) > 1:
                raise RuntimeError("a bad day")
            return read(report)

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", fails_together)
            found = await asyncio.gather(*(answer(batcher, [n, 6], sampling) for n in (1, 2)))
        assert [ids(one) for one in found] == expected


async def test_who_is_lost_in_a_fault_of_the_batcher_hears_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault between two lists: the sequence is in neither."""
    async with started() as batcher:

        def broken(*given: object) -> object:
            raise ValueError("no room was left")

        with monkeypatch.context() as patch:
            patch.setattr(BlockPool, "open", broken)
            async with asyncio.timeout(30):
                with pytest.raises(InternalError, match="ValueError"):
                    await answer(batcher, [1, 2], greedy(5))
        assert ids(await answer(batcher, [1, 2], greedy(5))) == tiny.generate(MODEL, [1, 2], 5)[0]
        await free_again(batcher)


class Complex(Counting):
    def mask(self) -> Any:
        raise InternalError("The grammar of the answer became too complex to follow.")


async def test_a_constraint_says_itself_why_it_fails() -> None:
    async with started() as batcher:
        with pytest.raises(InternalError, match="too complex"):
            async for _ in batcher.generate([1, 2], Sampling(50), Complex()):
                pass


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_oss"])
@pytest.mark.parametrize("seed", range(2))
async def test_random_traffic_through_a_store_that_is_too_small(name: str, seed: int) -> None:
    """Joins, leaves, faults and preemptions at random change nothing of what others hear."""
    model = tiny.ALL[name]()
    source = random.Random(seed)
    shared = some(source, 20, 40)
    again: list[tuple[list[int], Sampling, list[int]]] = []
    preempted = 0

    async def one(batcher: Any, number: int) -> None:
        await asyncio.sleep(source.random() * 0.03)
        prompt = [*shared[: source.choice([0, 16, 33])], *some(source, 1, 50)]
        count = source.randrange(40, 90)
        if number % 4 == 3:
            answering = batcher.generate(prompt, greedy(200))
            for _ in range(source.randrange(1, 40)):
                await anext(answering, None)
            await answering.aclose()
        elif number % 4 == 1:
            drawn = Sampling(count, seed=number, temperature=0.9, top_p=0.9, presence_penalty=0.5)
            found = ids(await answer(batcher, prompt, drawn))
            again.append((prompt, drawn, found))
        elif number % 4 == 2:
            bound = Counting(10 + count)
            found = [t.id async for t in batcher.generate(prompt, Sampling(200), bound)]
            assert found == [*range(10, 11 + count), None]
        else:
            found = ids(await answer(batcher, prompt, greedy(count)))
            assert found == tiny.generate(model, prompt, count)[0]

    async with started(model, parallel=5, cache_tokens=12 * BLOCK) as batcher:
        plan = batcher._scheduler.plan

        def watched() -> Any:
            nonlocal preempted
            found = plan()
            preempted += len(found.preempted)
            return found

        batcher._scheduler.plan = watched  # type: ignore[method-assign]
        failing(
            batcher,
            lambda works: torch.OutOfMemoryError() if len(works) > source.choice([3, 9]) else None,
        )
        await asyncio.gather(*(one(batcher, number) for number in range(12)))
        await free_again(batcher)
        for prompt, drawn, found in again:
            assert ids(await answer(batcher, prompt, drawn)) == found
    assert preempted
