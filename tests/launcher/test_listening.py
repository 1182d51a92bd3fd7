"""The sockets that gateways inherit, and what becomes of what waits in them."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from dev_opsgpt.launcher.listening import SOCKETS, Hold, Listening, Seat, inherited
from tests.support.ports import free_ports

HOST = "127.0.0.1"


@pytest.fixture
def port() -> int:
    (found,) = free_ports(1)
    return found


@pytest.fixture
def held() -> Iterator[list[Hold]]:
    holds: list[Hold] = []
    yield holds
    for hold in holds:
        hold.release()


def test_who_takes_over_gets_what_waits(port: int) -> None:
    listening = Listening()
    old = listening.take(Seat(HOST, port))
    (sock,) = old.sockets
    sock.listen()
    with socket.create_connection((HOST, port)) as client:
        client.sendall(b"hello")
        new = listening.take(Seat(HOST, port))
        old.release()
        old.release()
        (same,) = new.sockets
        assert same is sock
        with closing(same.accept()[0]) as accepted:
            assert accepted.recv(5) == b"hello"
    new.release()
    assert sock.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


def test_each_has_its_own_and_fewer_share_the_rest(port: int, held: list[Hold]) -> None:
    listening = Listening()
    held += [listening.take(Seat(HOST, port, number, 3)) for number in range(3)]
    (first,), (second,), (third,) = (hold.sockets for hold in held)
    assert len({first, second, third}) == 3
    one = listening.take(Seat(HOST, port, 0, 1))
    assert one.sockets == [first, second, third]
    two = listening.take(Seat(HOST, port, 1, 2))
    assert two.sockets == [second, third]
    for hold in (*held, one):
        hold.release()
    assert first.fileno() == -1
    assert third.fileno() != -1
    held.append(two)


def test_one_that_died_begins_with_a_new_one(port: int, held: list[Hold]) -> None:
    listening = Listening()
    dead = listening.take(Seat(HOST, port, 0, 2))
    held.append(listening.take(Seat(HOST, port, 1, 2)))
    (before,) = dead.sockets
    dead.release()
    assert before.fileno() == -1
    held.append(listening.take(Seat(HOST, port, 0, 2)))
    (after,) = held[-1].sockets
    assert after.getsockname() == (HOST, port)


def test_port_that_is_taken_is_left_to_the_gateway_to_tell(port: int) -> None:
    with socket.create_server((HOST, port)):
        assert Listening().take(Seat(HOST, port)).sockets == ()


def test_handed_down_to_one_process_only(port: int, held: list[Hold]) -> None:
    held.append(Listening().take(Seat(HOST, port)))
    number = os.dup(held[0].sockets[0].fileno())
    os.set_inheritable(number, True)
    (found,) = inherited({SOCKETS: str(number)})
    with found:
        assert found.getsockname() == (HOST, port)
        assert not found.get_inheritable()
    assert inherited({SOCKETS: ""}) == inherited({}) == []
