"""A worker that speaks FastChat's protocol only, and a controller that knows it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.stack import SECRET, Stack
from tests.support.upstream import Call, Upstream

_CONVERSATION = {
    "name": "x",
    "system_template": "{system_message}",
    "system_message": "",
    "roles": ["U", "A"],
    "messages": [],
    "offset": 0,
    "sep_style": 1,
    "sep": "|",
    "sep2": None,
    "stop_str": None,
    "stop_token_ids": None,
}


class FastChatWorker:
    """Says ``text``, a frame a word, ``delay`` seconds before each; ``fails`` ends it with an
    error frame. ``asked`` are the paths and bodies of its requests."""

    def __init__(self, text: str = "fine it is") -> None:
        self.text = text
        self.delay = 0.0
        self.fails = False
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.upstream = Upstream(self._answer)

    @asynccontextmanager
    async def registered(self, stack: Stack, model: str = "echo") -> AsyncIterator[None]:
        """It runs, and the gateway has it as one more replica of the model."""
        upstream = self.upstream
        await upstream.start()
        try:
            health = (await stack.client.get("/health")).json()["models"]
            body = {
                "worker_name": f"http://127.0.0.1:{upstream.port}",
                "check_heart_beat": False,
                "worker_status": {"model_names": [model], "speed": 1, "queue_length": 0},
            }
            answer = await stack.client.post(
                f"{stack.controller_url}/register_worker",
                json=body,
                headers={"authorization": f"Bearer {SECRET}"},
            )
            assert answer.status_code == 200
            await stack.expect(health.get(model, 0) + 1, model)
            yield
        finally:
            await upstream.stop()

    async def _answer(self, call: Call) -> None:
        path = call.head.split(b" ")[1].decode()
        self.asked.append((path, call.body))
        replies = {
            "/worker_get_conv_template": {"conv": _CONVERSATION},
            "/model_details": {"context_length": 2048},
            "/count_token": {"count": 3, "error_code": 0},
        }
        if path in replies:
            await call.json(replies[path])
            return
        await call.begin()
        said = ""
        for word in self.text.split(" "):
            await asyncio.sleep(self.delay)
            said += word + " "
            await self._frame(call, text=said, error_code=0)
        if self.fails:
            await self._frame(call, text="**broken**", error_code=50001)
        call.writer.write(b"0\r\n\r\n")

    async def _frame(self, call: Call, **fields: Any) -> None:
        await call.raw(json.dumps(fields).encode() + b"\0")
