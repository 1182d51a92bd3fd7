"""The sockets on which a launcher's gateways listen. The launcher keeps them, and each gateway
process inherits its own: so when one takes over from another, the connections that wait in the
kernel to be accepted go from hand to hand, and none is reset.

A socket of its own for each process has the kernel deal out connections evenly. Where fewer
processes are left than there were, those of the sockets that nobody owns any more are listened to
by all of them: to close one would reset what has arrived at it meanwhile.
"""

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dev_opsgpt.transport.server import PortInUse, bind

SOCKETS = "OPSGPT_SOCKETS"
"""The environment variable that holds the file descriptors of a gateway's listening sockets."""


@dataclass(frozen=True)
class Seat:
    """Which of the sockets at an address a gateway listens on: that with its ``number``, and all
    from ``count`` on."""

    host: str
    port: int
    number: int = 0
    count: int = 1


class Hold:
    """A process's claim to some sockets. They stay open while anybody holds them."""

    def __init__(
        self, sockets: Sequence[socket.socket], let_go: Callable[[Sequence[socket.socket]], None]
    ) -> None:
        self.sockets = sockets
        self._let_go = let_go

    def release(self) -> None:
        """Ends the claim; once is enough. The process has its sockets until it closes them."""
        sockets, self.sockets = self.sockets, ()
        self._let_go(sockets)


NOTHING = Hold((), lambda _: None)
"""A claim to no socket."""


class Listening:
    """The sockets of all addresses."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], list[socket.socket]] = {}
        self._holders: Counter[socket.socket] = Counter()

    def take(self, seat: Seat) -> Hold:
        """The sockets for a seat, made where there are none yet. A claim to nothing where that
        cannot be done: a gateway that binds its port itself will find out why, and tell."""
        sockets = self._open.setdefault((seat.host, seat.port), [])
        try:
            while len(sockets) <= seat.number:
                sockets.append(bind(seat.host, seat.port, reuse_port=True))
            if _closed(sockets[seat.number]):
                sockets[seat.number] = bind(seat.host, seat.port, reuse_port=True)
        except PortInUse:
            return NOTHING
        spare = [sock for sock in sockets[seat.count :] if not _closed(sock)]
        own = sockets[seat.number]
        found = [own, *(sock for sock in spare if sock is not own)]
        self._holders.update(found)
        return Hold(found, self._let_go)

    def _let_go(self, sockets: Sequence[socket.socket]) -> None:
        self._holders.subtract(sockets)
        for sock in sockets:
            if self._holders[sock] <= 0:
                del self._holders[sock]
                sock.close()


def _closed(sock: socket.socket) -> bool:
    return sock.fileno() < 0


def inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    """The sockets that a launcher has handed to this process, kept from its own children. None for
    a process that was started by hand."""
    words = environ.get(SOCKETS, "").split(",")
    sockets = [socket.socket(fileno=int(word)) for word in words if word]
    for sock in sockets:
        os.set_inheritable(sock.fileno(), False)
    return sockets
