"""Several sequences as one stream."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from dev_opsgpt.transport.fanout import BACKLOG, merge
from dev_opsgpt.worker.engine import Delta


class Sequence:
    def __init__(self, count: int, fail: bool = False) -> None:
        self.count = count
        self.fail = fail
        self.given = 0
        self.closed = False

    async def steps(self) -> AsyncGenerator[Delta, None]:
        try:
            for i in range(self.count):
                await asyncio.sleep(0)
                self.given += 1
                yield Delta(content=str(i))
            if self.fail:
                raise ValueError("broken")
        finally:
            self.closed = True


@pytest.mark.parametrize("number", [1, 2, 5])
async def test_every_step_comes_in_its_sequence_s_order(number: int) -> None:
    found: dict[int, list[str]] = {i: [] for i in range(number)}
    async for index, delta in merge([Sequence(20).steps() for _ in range(number)], at_once=8):
        found[index].append(delta.content)
    assert found == {i: [str(n) for n in range(20)] for i in range(number)}


@pytest.mark.parametrize("number", [1, 3])
async def test_closing_closes_all(number: int) -> None:
    sequences = [Sequence(10_000) for _ in range(number)]
    merged = merge([one.steps() for one in sequences], at_once=8)
    await anext(merged)
    await merged.aclose()
    assert all(one.closed for one in sequences)


async def test_an_error_ends_all() -> None:
    sequences = [Sequence(10_000), Sequence(3, fail=True)]
    with pytest.raises(ValueError, match="broken"):
        async for _ in merge([one.steps() for one in sequences], at_once=8):
            pass
    assert all(one.closed for one in sequences)


async def test_a_slow_reader_holds_the_sequences_back() -> None:
    sequences = [Sequence(100_000), Sequence(100_000)]
    merged = merge([one.steps() for one in sequences], at_once=8)
    await anext(merged)
    for _ in range(5000):
        await asyncio.sleep(0)
    assert sum(one.given for one in sequences) <= BACKLOG + 4
    await merged.aclose()


async def test_no_more_than_the_given_number_is_at_work() -> None:
    sequences = [Sequence(5) for _ in range(10)]
    most = 0
    async for _ in merge([one.steps() for one in sequences], at_once=3):
        most = max(most, sum(0 < one.given < 5 for one in sequences))
    assert most <= 3
    assert all(one.closed for one in sequences)
