"""Two machines: the service on one, a worker on the other, a cable between them that is cut.

The machines are network namespaces, which need root and ``ip`` (the package iproute2).
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.support.load import chat
from tests.support.service import Service, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="no ip command: install iproute2"),
]

KEY = "sk-for-tests"
CLONE_NEWNET = 0x40000000
# An answer that takes some seconds.
LONG = 3000

T = TypeVar("T")


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Machine:
    """A network namespace with one cable; ``call`` runs a function on it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.prefix = ("ip", "netns", "exec", name)
        self._threads = ThreadPoolExecutor(initializer=self._enter)

    def start(self, function: Callable[..., T], *args: Any) -> "Future[T]":
        return self._threads.submit(function, *args)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        return self.start(function, *args).result()

    def _enter(self) -> None:
        """What a thread opens from now on, it opens on this machine."""
        with Path(f"/run/netns/{self.name}").open() as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")

    def cable(self, state: str) -> None:
        """Plugs it in ("up") or pulls it out ("down")."""
        ip("-n", self.name, "link", "set", "eth0", state)

    def until(self, holds: Callable[[], bool], seconds: float) -> float:
        """Waits until something holds, seen from here; the seconds it took."""
        began = time.monotonic()
        while not self.call(holds):
            assert time.monotonic() - began < seconds, f"not so after {seconds:g} s"
            time.sleep(0.1)
        return time.monotonic() - began

    def close(self) -> None:
        self._threads.shutdown()


@contextmanager
def machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a cable between them; nothing of them is left afterwards."""
    # Each namespace has addresses of its own, so runs side by side do not meet.
    a = Machine(f"opsgpt-a-{os.getpid()}", "10.213.7.1")
    b = Machine(f"opsgpt-b-{os.getpid()}", "10.213.7.2")
    with ExitStack() as stack:
        for machine in (a, b):
            ip("netns", "add", machine.name)
            stack.callback(ip, "netns", "delete", machine.name)
            stack.callback(machine.close)
        ip(*f"-n {a.name} link add eth0 type veth peer name eth0 netns {b.name}".split())
        for machine in (a, b):
            ip("-n", machine.name, "address", "add", f"{machine.address}/30", "dev", "eth0")
            ip("-n", machine.name, "link", "set", "lo", "up")
            machine.cable("up")
        yield a, b


class Client:
    """A client on a machine, with a key."""

    def __init__(self, service: Service, key: str | None = KEY) -> None:
        self._service = service
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(self, **fields: Any) -> httpx.Response:
        url = f"{self._service.gateway}/v1/chat/completions"
        return httpx.post(url, json=chat(**fields), headers=self._headers, timeout=60)

    def answers(self) -> bool:
        return self.ask().status_code == 200

    def stream(self) -> list[str]:
        """The events of a long stream."""
        answer = self.ask(tokens=LONG, stream=True)
        assert answer.status_code == 200, answer.text
        return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]


def test_a_cut_cable(tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    with machines() as (a, b), ExitStack() as stack:
        service = stack.enter_context(
            serving(
                folders[0],
                command=("dev_opsgpt/service/llm_api.py", "-o"),
                prefix=a.prefix,
                host=a.address,
                environ={"OPSGPT_API_KEYS": KEY},
            )
        )
        far = stack.enter_context(
            serving(
                folders[1],
                command=(
                    *("dev_opsgpt/service/llm_api.py", "-m"),
                    *("-c", service.controller, "-n", "tiny-chat"),
                ),
                prefix=b.prefix,
                host="0.0.0.0",
                FSCHAT_MODEL_WORKERS={"default": {"advertise_host": b.address}},
            )
        )
        client = Client(service)
        a.until(lambda: reachable(service) and service.replicas() == 1, 60)
        assert a.call(client.answers)
        address = f"http://{b.address}:{far.port + 2}"
        assert [worker["address"] for worker in a.call(service.workers)] == [address]
        assert a.call(Client(service, None).ask).status_code == 401

        streamed = a.start(client.stream)
        plain = a.start(lambda: client.ask(tokens=LONG))
        a.until(lambda: running(address) == 2, 30)
        # It stands still meanwhile, so that both are in work when the cable is cut.
        (engine,) = far.children("engine")
        engine.send(signal.SIGSTOP)
        b.cable("down")
        engine.send(signal.SIGCONT)
        cut = time.monotonic()
        left = a.until(lambda: service.workers() == [], 60)
        events = streamed.result(60)
        assert events[-1].startswith('{"error"'), events[-1]
        assert "[DONE]" not in events
        assert plain.result(60).status_code in (502, 503)
        ended = time.monotonic() - cut
        a.until(lambda: service.replicas() == 0, 30)
        refused = a.call(client.ask)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unavailable")

        b.cable("up")
        back = a.until(lambda: service.replicas() == 1, 60)
        assert a.call(client.answers)
        assert a.call(client.stream)[-1] == "[DONE]"
        a.until(lambda: running(address) == 0, 30)
        print(f"cut cable: left {left:.1f} s, in flight ended {ended:.1f} s, back {back:.1f} s")


def running(address: str) -> int:
    """How many requests a worker has in work."""
    found: int = httpx.get(f"{address}/health", timeout=20).json()["running"]
    return found


def reachable(service: Service) -> bool:
    try:
        return service.replicas() >= 0
    except httpx.TransportError:
        return False
