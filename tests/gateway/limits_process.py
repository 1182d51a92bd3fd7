"""One of several processes that count together, for tests: does what its arguments say.

``hammer <folder> <limits as JSON>``: says so, and after a line on its input asks all the time until
the minute's requests are used up and a little longer, holds a few leases, and prints the times of
what was admitted, how many were refused after that, and how many it has seen at once.
``hold <folder> <n> <limits>``: takes n leases, says so, and waits to be killed.
``update <folder> <limits>``: admits and settles without end, says so when it has begun.
"""

import asyncio
import json
import random
import sys
import time
from pathlib import Path

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import Lease, SharedLimits
from dev_opsgpt.protocol.errors import RateLimited


def key(text: str) -> Key:
    return Key("key_1", 7, **json.loads(text))


async def hammer(limits: SharedLimits, holder: Key) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    admitted = []
    most = refused = 0
    held: list[Lease] = []
    full = False
    while refused < 50:
        before = time.monotonic()
        try:
            held.append(await limits.admit(holder, 1))
            admitted.append((before, time.monotonic()))
        except RateLimited:
            refused += full
        if held and (len(held) > 3 or random.random() < 0.5):
            limits.settle(held.pop(random.randrange(len(held))), 1, 0.001)
        used = await limits.used(holder)
        most = max(most, used.concurrent)
        full = used.requests == holder.rpm
        # Leaves a core for the others.
        time.sleep(random.random() * 0.002)
    for lease in held:
        limits.settle(lease, 1, 0.001)
    print(json.dumps([admitted, refused, most]))


async def hold(limits: SharedLimits, count: int, holder: Key) -> None:
    held = [await limits.admit(holder, 1) for _ in range(count)]
    print(len(held), flush=True)
    sys.stdin.read()


async def update(limits: SharedLimits, holder: Key) -> None:
    print("begun", flush=True)
    while True:
        lease = await limits.admit(holder, 2)
        limits.settle(lease, 1, 0.0)
        time.sleep(0)


async def main(what: str, folder: str, *words: str) -> None:
    limits = SharedLimits(Path(folder))
    if what == "hammer":
        await hammer(limits, key(words[0]))
    elif what == "hold":
        await hold(limits, int(words[0]), key(words[1]))
    else:
        await update(limits, key(words[0]))
    await limits.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
