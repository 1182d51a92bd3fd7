"""Ports for servers of tests, which no other test run beside this one is given."""

import socket
from functools import cache
from itertools import chain

# Below what Linux gives to outgoing connections (32768 and up): else one of these could sit on the
# port of a process that is about to start, or to be started again.
RANGE = range(15_000, 32_000)
BLOCK = 500


def free_ports(count: int) -> list[int]:
    """Neighbouring ports that nobody uses. A run of tests counts through a block of its own, so
    that none is given twice within hundreds, nor to a run beside it."""
    return _block().take(count)


class _Block:
    """The ports after one that is held, by which other processes know that they are taken."""

    def __init__(self, held: socket.socket) -> None:
        self._held = held
        self._first = held.getsockname()[1] + 1
        self._next = 0

    def take(self, count: int) -> list[int]:
        size = BLOCK - 1
        for start in chain(range(self._next, size - count + 1), range(size - count + 1)):
            found = range(self._first + start, self._first + start + count)
            if all(_free(port) for port in found):
                self._next = start + count
                return list(found)
        raise OSError(f"no {count} neighbouring ports are free")


@cache
def _block() -> _Block:
    for port in RANGE[::BLOCK]:
        held = _bound(port)
        if held is not None:
            return _Block(held)
    raise OSError("every block of ports has its test run")


def _free(port: int) -> bool:
    sock = _bound(port)
    if sock is None:
        return False
    sock.close()
    return True


def _bound(port: int) -> socket.socket | None:
    """Not with SO_REUSEADDR: what was closed a moment ago is not free."""
    sock = socket.socket()
    try:
        sock.bind(("", port))
    except OSError:
        sock.close()
        return None
    return sock
