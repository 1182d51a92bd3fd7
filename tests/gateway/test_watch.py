"""The gateway's view of its workers while controllers and workers come and go."""

import asyncio

import httpx

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.transport.server import Server, bind
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack, running


async def ask(stack: Stack) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}
    return await stack.client.post("/v1/chat/completions", json=body)


async def new_controller(stack: Stack) -> None:
    """A controller that has forgotten everything takes the place of the running one."""
    port = stack.controller.port
    stack.controller._server.config.app.state.controller.close()  # type: ignore[union-attr]
    await stack.controller.stop()
    app = create_app(ControllerOptions(secret=SECRET))
    stack.controller = Server(app, bind("127.0.0.1", port), drain_timeout=1)
    await stack.controller.start()


async def rows(stack: Stack) -> int:
    headers = {"authorization": f"Bearer {SECRET}"}
    answer = await stack.client.get(f"{stack.controller_url}/list_workers", headers=headers)
    return len(answer.json()["workers"])


async def test_no_request_fails_while_a_new_controller_learns_who_is_there() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        await new_controller(stack)
        seen = set()
        # Two of a worker's beats, and three of the gateway's attempts to connect.
        for _ in range(80):
            seen.add((await ask(stack)).status_code)
            await asyncio.sleep(0.05)
        assert await rows(stack) == 1
        assert seen == {200}


async def test_a_model_that_was_taken_away_is_unknown_even_if_it_was_declared() -> None:
    async with running({"echo": [ScriptedEngine()]}, declared=("echo",)) as stack:
        await stack.workers.pop().stop()
        # Until the gateway has heard that it has gone, it may come back.
        async with asyncio.timeout(30):
            while (answer := await ask(stack)).status_code == 503:
                await asyncio.sleep(0.02)
        assert answer.status_code == 404
