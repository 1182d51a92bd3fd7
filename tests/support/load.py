"""Clients that keep a gateway busy and write down how each of their requests ended."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

# No request here takes a tenth of it; one that does hangs.
HANGS = 30.0
# tiny-chat's end-of-answer token: forbidden, it talks on for all of max_tokens.
TALK_ON = {"2": -100}


@dataclass(frozen=True)
class Outcome:
    """How a request ended.

    ``how``: "ok"; "error event", a stream that says that it failed; "refused", an error status;
    and what must never be: "silent", a stream that ends without ``[DONE]`` or error, or goes on
    after one; "wrong", an answer that is not one; "cut", a broken connection; "hung".
    """

    how: str
    stream: bool
    status: int = 0
    detail: str = ""
    began: float = 0.0
    seconds: float = 0.0


def chat(model: str = "tiny-chat", tokens: int = 60, **fields: Any) -> dict[str, Any]:
    """A chat request whose answer is exactly ``tokens`` long."""
    messages = [{"role": "user", "content": f"Tell me about number {random.random()}"}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "logit_bias": TALK_ON}
    return body | fields


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Outcome:
    """Sends one request and reads its answer to the end."""
    stream = bool(body.get("stream"))
    began = time.monotonic()
    try:
        async with asyncio.timeout(HANGS):
            how, status, detail = await (_streamed if stream else _plain)(client, body)
    except TimeoutError:
        how, status, detail = "hung", 0, f"{HANGS:g} s"
    except httpx.TransportError as error:
        how, status, detail = "cut", 0, repr(error)
    return Outcome(how, stream, status, detail, began, time.monotonic() - began)


async def _plain(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, int, str]:
    answer = await client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        return "refused", answer.status_code, answer.json()["error"]["code"] or ""
    choice = answer.json()["choices"][0]
    good = choice["message"]["content"] and choice["finish_reason"] == "length"
    return ("ok", 200, "") if good else ("wrong", 200, answer.text)


async def _streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, int, str]:
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        text = (await answer.aread()).decode()
    if answer.status_code != 200:
        return "refused", answer.status_code, json.loads(text)["error"]["code"] or ""
    if not text.endswith("\n\n"):
        return "wrong", 200, text[-200:]
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    errors = [event for event in events if event.startswith('{"error"')]
    if errors:
        proper = len(errors) == 1 and events[-1] == errors[0]
        return "error event" if proper else "silent", 200, errors[0]
    if events[-1:] != ["[DONE]"] or events.count("[DONE]") != 1:
        return "silent", 200, f"{len(events)} events, the last {events[-1:]}"
    reasons = [json.loads(e)["choices"][0]["finish_reason"] for e in events[:-1]]
    good = reasons[-1] == "length" and not any(reasons[:-1])
    return ("ok", 200, "") if good else ("wrong", 200, str(reasons[-3:]))


class Load:
    """Requests from several clients at once, about half of them streamed. ``model`` may be changed
    while it runs."""

    def __init__(self, url: str, model: str = "tiny-chat", tokens: int = 60) -> None:
        self.model = model
        self.outcomes: list[Outcome] = []
        self._url = url
        self._tokens = tokens
        self._stop = False

    def count(self, *, stream: bool | None = None, since: float = 0.0) -> Counter[str]:
        """How many requests ended how: all, or the plain or streamed ones, or those begun later."""
        return Counter(
            outcome.how if outcome.how != "refused" else f"refused {outcome.status}"
            for outcome in self.outcomes
            if outcome.began >= since and stream in (None, outcome.stream)
        )

    def bad(self, *allowed: str) -> list[Outcome]:
        """The outcomes that are not ok and not allowed."""
        return [o for o in self.outcomes if o.how not in ("ok", *allowed)]

    async def served(self, more: int, seconds: float = 2 * HANGS) -> None:
        """Waits until so many further requests have ended well."""
        goal = self.count()["ok"] + more
        async with asyncio.timeout(seconds):
            while self.count()["ok"] < goal:
                await asyncio.sleep(0.02)

    async def _client(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=None) as client:
            while not self._stop:
                body = chat(self.model, self._tokens, stream=random.random() < 0.5)
                outcome = await ask(client, body)
                self.outcomes.append(outcome)
                if outcome.how != "ok":
                    # A client that is refused does not ask again at once.
                    await asyncio.sleep(0.05)

    async def run(self, clients: int) -> None:
        """Runs until ``stop``; returns when every answer has been read."""
        await asyncio.gather(*(self._client() for _ in range(clients)))

    def stop(self) -> None:
        """No further requests."""
        self._stop = True


@asynccontextmanager
async def load(
    url: str, *, clients: int = 8, model: str = "tiny-chat", tokens: int = 60
) -> AsyncIterator[Load]:
    """Load for as long as the context lasts; all its answers have been read afterwards."""
    found = Load(url, model, tokens)
    task = asyncio.create_task(found.run(clients))
    try:
        yield found
    except BaseException:
        task.cancel()
        raise
    finally:
        found.stop()
        await asyncio.gather(task, return_exceptions=True)
    task.result()


def report(name: str, loads: Iterable[Load], **figures: object) -> None:
    """Prints a scenario's figures (``pytest -s`` or ``-rP`` shows them)."""
    counts = [
        f"plain {dict(one.count(stream=False))} streamed {dict(one.count(stream=True))} "
        f"slowest {max((o.seconds for o in one.outcomes), default=0):.1f} s"
        for one in loads
    ]
    shown = [
        f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures.items()
    ]
    print(f"{name}: {'; '.join([*counts, *shown])}")
