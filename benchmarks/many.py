"""One server that stands for many workers: it listens at every address it is given, and each
answer's ``id`` says at which one it was asked: ``python -m benchmarks.many PORT ADDRESS ...``."""

import asyncio
import sys
from collections.abc import Sequence
from functools import partial

import uvloop

from benchmarks.contender import MODEL
from benchmarks.mock import Canned, json_answer
from benchmarks.upstream import CHAT, answer, listing

ID = b"chatcmpl-0123456789abcdef"


def addresses(count: int) -> list[str]:
    """So many addresses of this machine's own loopback network."""
    return [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]


def answer_of(address: str) -> bytes:
    """A chat completion by the worker at that address."""
    return answer().replace(ID, f"{MODEL}-{address}".encode())


def address_in(identity: str) -> str:
    """The address in an answer's ``id``."""
    return identity.removeprefix(f"{MODEL}-")


async def _serve(port: int, hosts: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    otherwise = json_answer(listing())
    for host in hosts:
        make = partial(Canned, {CHAT: json_answer(answer_of(host))}, otherwise)
        await loop.create_server(make, host, port, backlog=64)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2:]))
