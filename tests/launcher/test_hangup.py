"""With real terminals: a child that has one of its own, which the test closes."""

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from dev_opsgpt.launcher.hangup import Hangup
from tests.launcher.stack import ROOT, until

CHILD = """
import asyncio, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from dev_opsgpt.launcher import hangup
said = Path({said!r})

async def main():
    found = hangup.Hangup(ignored={ignored})
    watch = asyncio.create_task(found.watch())
    def hung_up():
        with said.open("a") as file:
            file.write("end\\n" if found.ends() else "look\\n")
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
    said.write_text("up\\n")
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Child:
    """A process in a terminal of its own."""

    def __init__(self, said: Path, ignored: bool) -> None:
        self.said = said
        text = CHILD.format(root=str(ROOT), said=str(said), ignored=ignored)
        # Not pty.fork: that forks this process, which has threads.
        self.master, slave = pty.openpty()
        code = "import os, sys; os.setsid(); os.open(os.ttyname(0), os.O_RDWR); exec(sys.argv[1])"
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code, text],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, slave, fd) for fd in (0, 1, 2)],
        )
        os.close(slave)
        until(lambda: said.exists() and said.read_text(), "it is up")

    def hear(self, line: str) -> None:
        """Waits for the last thing it says."""
        until(lambda: self.said.read_text().splitlines()[-1] == line, f"it says {line}")

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize(("ignored", "heard"), [(False, "end"), (True, "look")])
def test_terminal_that_closes_ends_it_but_for_nohup(
    tmp_path: Path, ignored: bool, heard: str
) -> None:
    child = Child(tmp_path / "said", ignored)
    try:
        os.kill(child.pid, signal.SIGHUP)
        child.hear("look")
        os.write(child.master, b"x")
        os.close(child.master)
        until(lambda: child.said.read_text().count("\n") == 3, "a second signal")
        child.hear(heard)
        # With the terminal gone every further signal asks for a look.
        os.kill(child.pid, signal.SIGHUP)
        until(lambda: child.said.read_text().count("\n") == 4, "a third signal")
        child.hear("look")
    finally:
        child.end()


def test_process_without_a_terminal_is_only_ever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev_opsgpt.launcher.hangup.has_terminal", lambda: False)
    assert not Hangup(ignored=False).ends()
