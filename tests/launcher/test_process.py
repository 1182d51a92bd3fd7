"""With stand-ins for children: small Python programs that speak over the link as children do."""

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

from dev_opsgpt.launcher.link import News, Ready
from dev_opsgpt.launcher.logs import LogFile
from dev_opsgpt.launcher.process import Process
from tests.launcher.stack import ROOT, alive

SPEAK = """
import os, signal, subprocess, sys, time
sys.path.insert(0, {root!r})
from dev_opsgpt.launcher.link import Link, Ready
link = Link.from_environment(os.environ)
"""


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SPEAK.format(root=str(ROOT)) + textwrap.dedent(text))


async def spawn(text: str, log: LogFile, news: list[News] | None = None) -> Process:
    heard = [] if news is None else news
    return await Process.spawn(program(text), os.environ, log, heard.append)


async def line(log: LogFile) -> str:
    async with asyncio.timeout(30):
        while not log.tail:
            await asyncio.sleep(0.02)
    return log.tail[-1]


async def test_news_output_and_exit_code_are_all_heard(tmp_path: Path) -> None:
    log, news = LogFile(tmp_path / "a.log"), list[News]()
    process = await spawn(
        """
        print("to the log", flush=True)
        print("and this", file=sys.stderr)
        link.tell(Ready(1, "http://here"))
        sys.exit(7)
        """,
        log,
        news,
    )
    assert await process.wait() == 7
    assert news == [Ready(1, "http://here")]
    assert log.path.read_text() == "to the log\nand this\n"


async def test_what_is_no_news_is_skipped(tmp_path: Path) -> None:
    news = list[News]()
    text = 'link._end.sendall(b"{}\\nno json\\n"); link.tell(Ready(2, "there"))'
    process = await spawn(text, LogFile(tmp_path / "a.log"), news)
    assert await process.wait() == 0
    assert news == [Ready(2, "there")]


async def test_children_of_a_dead_child_are_ended(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    text = """
        grandchild = subprocess.Popen(["sleep", "600"])
        print(grandchild.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = await spawn(text, log)
    assert await process.wait() == -signal.SIGKILL
    pid = int(await line(log))
    async with asyncio.timeout(30):
        while alive(pid):
            await asyncio.sleep(0.02)


async def test_terminate_asks(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    text = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        print("up", flush=True)
        time.sleep(600)
    """
    process = await spawn(text, log)
    await line(log)
    process.terminate()
    assert await process.wait() == 5
    process.terminate()
    process.kill()


async def test_child_does_not_get_the_terminals_signals(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    process = await spawn("print(os.getpgid(0) == os.getpid())", log)
    await process.wait()
    assert log.tail == ["True"]
