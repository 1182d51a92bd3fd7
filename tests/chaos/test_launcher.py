"""The end of the launcher: killed, and asked to stop."""

import asyncio
import json
import signal
import time
from pathlib import Path

import httpx
import pytest

from dev_opsgpt.launcher.link import ORPHAN_GRACE
from tests.support.load import ask, chat, load
from tests.support.processes import gone
from tests.support.service import serving, until

pytestmark = pytest.mark.slow

# A stream that is still going when the signal comes, and done well within the drain timeout.
LONG = 1500


async def test_a_killed_launcher_leaves_no_orphan(tmp_path: Path) -> None:
    with serving(tmp_path, FSCHAT_MODEL_WORKERS={"tiny-chat": {"replicas": 2}}) as service:
        await service.expect(2)
        family = service.children()
        assert len(family) == 4
        async with load(service.gateway, clients=4, tokens=LONG) as clients:
            await asyncio.sleep(1)
            service.launcher.send(signal.SIGKILL)
            killed = time.monotonic()
            clients.stop()
            assert await asyncio.to_thread(gone, family, ORPHAN_GRACE + 30)
        print(f"kill -9 launcher: all gone after {time.monotonic() - killed:.1f} s")
        service.wait()
        # The next start finds the ports free and no lock in its way.
        service.start()
        await service.expect(2)


async def test_a_terminated_launcher_lets_answers_in_flight_finish(tmp_path: Path) -> None:
    with serving(tmp_path, DRAIN_TIMEOUT=60.0) as service:
        await service.expect(1)
        family = service.children()
        async with httpx.AsyncClient(base_url=service.gateway, timeout=60) as client:
            plain = asyncio.create_task(ask(client, chat(tokens=LONG)))
            body = chat(tokens=LONG, stream=True)
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.aiter_lines()
                assert "delta" in await anext(lines)
                await until(lambda: service.health()["running"] == 2, 30)
                service.launcher.send(signal.SIGTERM)
                told = time.monotonic()
                events = [line[6:] async for line in lines if line]
            assert events[-1] == "[DONE]"
            assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
            assert (await plain).how == "ok"
        print(f"SIGTERM: the stream went on for {time.monotonic() - told:.1f} s")
        assert await asyncio.to_thread(service.wait) == 0
        assert gone(family, 0)
