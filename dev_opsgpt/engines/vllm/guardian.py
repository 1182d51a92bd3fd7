"""Holds vLLM's processes, and lets go of none: ``python guardian.py <command> ...``.

Run as a file by itself, the first of a session of its own, with nothing but the standard library.
It starts the command in its process group and waits for the command's end or for that of its own
standard input, which its parent holds open. The kernel closes that however the parent ends, so not
even ``kill -9`` leaves a server behind that holds a model's memory. Its exit code is the command's,
as a shell gives it.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

# Seconds from the polite signal to the other one.
GRACE = 3.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> None:
    """Runs a command to its end or to the parent's, and takes everything that it started along."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Stopped by a signal it could not see its parent go; to one that runs this one is nothing.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - its whole purpose
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)
    os.close(1)
    os.close(2)
    _wait(child)
    _end(child)


def _wait(child: "subprocess.Popen[bytes]") -> None:
    """Returns when the child has ended, or nobody holds the other end of the standard input."""
    ended = os.pidfd_open(child.pid)
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready or not os.read(0, 4096):
            return


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Asks the child to end, where it has not, and ends what is left of its group, which is this
    process's own as well."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    _kill_others()
    code = child.returncode
    os._exit(128 - code if code < 0 else code)


def _kill_others() -> None:
    """Ends all others of the process group: vLLM's engine and its workers outlive their server
    where that was killed."""
    own = os.getpid()
    while others := [pid for pid in _group(os.getpgrp()) if pid != own]:
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # They are this process's children by now, and nobody else buries them.
        for pid in others:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                continue


def _group(group: int) -> list[int]:
    """The living members of a process group."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry))
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
