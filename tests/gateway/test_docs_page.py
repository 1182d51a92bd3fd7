"""The page at /docs in a real browser that can reach nothing but this machine."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.stack import running

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--virtual-time-budget=15000",
    "--dump-dom",
)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium; `make system` installs it as root")
async def test_the_page_shows_the_routes(tmp_path: Path) -> None:
    async with running({}) as stack:
        process = await asyncio.create_subprocess_exec(
            str(BROWSER),
            *OPTIONS,
            f"--user-data-dir={tmp_path}",
            f"{stack.url}/docs",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        page, _ = await asyncio.wait_for(process.communicate(), 60)
    text = page.decode()
    for shown in ("/v1/chat/completions", "/v1/models", "Answers a conversation", "Authorize"):
        assert shown in text
