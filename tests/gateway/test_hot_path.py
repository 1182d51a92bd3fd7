"""Which replica answers when the first one chosen cannot."""

import asyncio

from tests.support.engines import ScriptedEngine
from tests.support.stack import Stack, running


async def breaks_off(stack: Stack, number: int) -> None:
    """A worker dies as by kill -9: connections cut, no goodbye."""
    worker = stack.workers[number]
    assert worker._server is not None
    assert worker._registration is not None
    worker._registration._task.cancel()  # type: ignore[union-attr]
    for connection in list(worker._server._server.server_state.connections):
        connection.transport.abort()  # type: ignore[union-attr]


async def test_a_replica_that_came_after_the_request_takes_it_over() -> None:
    first, second = ScriptedEngine(), ScriptedEngine()
    async with running({"echo": [first]}) as stack:
        body = {"model": "echo", "messages": [{"role": "user", "content": "hang"}]}
        request = asyncio.create_task(stack.client.post("/v1/chat/completions", json=body))
        while not first.active:
            await asyncio.sleep(0.01)
        await stack.add_worker(second)
        await stack.expect(2)
        await breaks_off(stack, 0)
        async with asyncio.timeout(30):
            while not second.active:
                await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
