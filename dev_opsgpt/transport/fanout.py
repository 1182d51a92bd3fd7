"""Several sequences of one request (``n``, several prompts) as one stream of steps."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from dev_opsgpt.protocol.steps import Delta

Steps = AsyncGenerator[Delta, None]
# Steps that may wait for a slow client before their sequence waits too.
BACKLOG = 256


async def merge(
    sequences: Sequence[Steps], *, at_once: int
) -> AsyncGenerator[tuple[int, Delta], None]:
    """The steps of all sequences as they come, each with the number of its sequence.

    ``at_once`` of them are at work at the same time, the others wait for their turn: one request
    for a hundred answers must not stand before everybody else's. The first error of any ends all;
    so does closing this generator.
    """
    if len(sequences) == 1:
        async with aclosing(sequences[0]) as only:
            async for delta in only:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue(BACKLOG)
    turns = asyncio.Semaphore(at_once)
    tasks = [
        asyncio.create_task(_pump(i, steps, queue, turns)) for i, steps in enumerate(sequences)
    ]
    left = len(tasks)
    try:
        while left:
            index, item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    index: int,
    steps: Steps,
    queue: asyncio.Queue[tuple[int, Delta | BaseException | None]],
    turns: asyncio.Semaphore,
) -> None:
    try:
        async with turns, aclosing(steps):
            async for delta in steps:
                await queue.put((index, delta))
    except Exception as error:
        await queue.put((index, error))
    else:
        await queue.put((index, None))
