"""The soak's requests: each kind that a gateway meets, and what becomes of it."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from dev_opsgpt.transport.client import Client, Origin

PATH = "/v1/chat/completions"
HANGS = 30.0


def _body(text: str, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "echo", "messages": messages} | fields).encode()


class Requests:
    """Sends requests of all kinds to a gateway. ``wrong`` are those that did not end as they
    should; ``done`` counts the kinds."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._client = Client(read_timeout=HANGS)
        self._origin = Origin(url)
        self._head = self._origin.head("POST", PATH, {"content-type": "application/json"})
        self._rng = rng
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[bool]]]] = {
            "plain": (50, self._plain),
            "streamed": (25, self._streamed),
            "4xx": (12, self._refused),
            "broken": (3, self._broken),
            "aborted": (10, self._aborted),
        }

    async def send(self, count: int, clients: int = 32) -> None:
        """Sends ``count`` requests, so many at a time."""
        left = iter(range(count))

        async def client() -> None:
            for _ in left:
                await self._one()

        await asyncio.gather(*(client() for _ in range(clients)))

    def close(self) -> None:
        self._client.close()

    async def _one(self) -> None:
        weights = [weight for weight, _ in self._kinds.values()]
        (kind,) = self._rng.choices(list(self._kinds), weights)
        self.done[kind] += 1
        if not await self._kinds[kind][1]():
            self.wrong.append(kind)

    async def _answer(self, body: bytes) -> tuple[int, bytes]:
        response = await self._client.send(self._origin, self._head, body)
        return response.status, await response.read()

    async def _plain(self) -> bool:
        text = f"{self._rng.random()} " * self._rng.randrange(1, 12)
        status, answer = await self._answer(_body(text.strip()))
        return status == 200 and text.strip().encode() in answer

    async def _streamed(self) -> bool:
        words = " ".join(str(n) for n in range(self._rng.randrange(1, 40)))
        status, answer = await self._answer(_body(words, stream=True))
        return status == 200 and answer.endswith(b"data: [DONE]\n\n")

    async def _refused(self) -> bool:
        name = str(self._rng.random())
        body, expected = self._rng.choice(
            [
                (b'{"model": "echo", "messages"', 400),
                (_body("x", temperature=9), 400),
                (_body("x", model=name), 404),
                (_body("refuse", stream=True), 400),
                (json.dumps({"model": "echo"}).encode(), 400),
            ]
        )
        status, answer = await self._answer(body)
        return status == expected and b'"error"' in answer

    async def _broken(self) -> bool:
        """The engine fails after the first step."""
        status, answer = await self._answer(_body("break", stream=True))
        return status == 200 and b'"error"' in answer and b"[DONE]" not in answer

    async def _aborted(self) -> bool:
        """The client hangs up, before the answer or in the middle of it."""
        stream = self._rng.random() < 0.5
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rng.uniform(0.001, 0.05)):
                sent = self._client.send(self._origin, self._head, _body("hang", stream=stream))
                response = await sent
                try:
                    await response.read()
                finally:
                    response.close()
                return False
        return True
