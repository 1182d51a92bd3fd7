"""What a child does when its launcher is gone; the launcher's end is played by the test."""

import asyncio
import os
import signal
import socket
import sys
import textwrap

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.handed import Handed, pack
from dev_opsgpt.launcher.link import (
    LINK,
    Applied,
    Failed,
    LauncherGone,
    Link,
    Ready,
    Stopped,
    decode,
)
from tests.launcher.stack import ROOT, alive

CHILD = """
import os, subprocess, sys, threading, time
sys.path.insert(0, {root!r})
from dev_opsgpt.launcher import link
link.ORPHAN_GRACE = {grace}
found = link.Link.from_environment(os.environ)
"""


async def child(text: str, grace: float = 60.0) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """``grace``: how long it may take to end by itself."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CHILD.format(root=str(ROOT), grace=grace) + textwrap.dedent(text),
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, LINK: str(theirs.fileno())},
            start_new_session=True,
        )
    return process, ours


def test_news_go_over_the_wire() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = Link(theirs)
        news = [Ready(1, "http://a"), Failed("no", 70, 2), Stopped(3), Applied(4, 1, "no")]
        for item in news:
            link.tell(item)
        assert [decode(line) for line in ours.recv(4096).splitlines()] == news


def test_launcher_that_is_gone_is_told_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        Link(theirs).tell(Stopped(1))


def test_child_started_by_hand_has_no_launcher() -> None:
    link = Link.from_environment({})
    link.tell(Stopped(1))
    link.watch(lambda: None)
    assert link.receive() is None


def test_configuration_comes_over_the_link() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handed = Handed(Settings(log_dir="x"), ("gateway",))
        ours.sendall(pack(handed))
        link = Link(theirs)
        assert link.receive() == handed
        ours.close()
        with pytest.raises(LauncherGone):
            link.receive()


async def test_each_further_configuration_is_told() -> None:
    process, ours = await child(
        """
        gone = threading.Event()
        print(found.receive().settings.log_dir, flush=True)
        found.watch(gone.set, lambda handed: print(handed.settings.log_dir, flush=True))
        gone.wait()
        """
    )
    for name in ("a", "b", "c"):
        ours.sendall(pack(Handed(Settings(log_dir=name), ())))
    assert process.stdout is not None
    assert [await process.stdout.readline() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
    ours.close()
    assert await process.wait() == 0


async def test_loss_of_the_launcher_is_noticed() -> None:
    process, ours = await child(
        """
        gone = threading.Event()
        found.watch(gone.set)
        gone.wait()
        print("bye", flush=True)
        """
    )
    ours.close()
    out, _ = await process.communicate()
    assert out == b"bye\n"
    assert process.returncode == 0


async def test_child_that_does_not_end_is_ended_with_its_children() -> None:
    process, ours = await child(
        """
        found.watch(lambda: None)
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
        time.sleep(600)
        """,
        grace=0.2,
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    ours.close()
    assert await process.wait() == -signal.SIGKILL
    async with asyncio.timeout(30):
        while alive(pid):
            await asyncio.sleep(0.02)
