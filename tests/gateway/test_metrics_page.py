"""``/metrics`` over real HTTP, and out of several real processes on one port."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev_opsgpt.gateway.exporter import Exporter
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.gateway.metrics_page import PATH, create_metrics_page, reader_check
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import bearer
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import Scope, Server, bind

ROOT = Path(__file__).parents[2]


def check(scope: Scope) -> None:
    if bearer(scope) != "the scraper's":
        raise AuthenticationFailed("Not for you.")


async def test_the_page_is_for_those_who_may_read_it() -> None:
    page = create_metrics_page(Exporter(Metrics()), check)
    server = Server(Router({PATH: {"GET": page}}), bind("127.0.0.1", 0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            assert (await client.get(PATH)).status_code == 401
            headers = {"authorization": "Bearer the scraper's"}
            plain = await client.get(PATH, headers=headers)
            assert plain.status_code == 200
            assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert "# TYPE opsgpt_requests_total counter" in plain.text
            # What Prometheus 3 sends.
            headers["accept"] = (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
                "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            )
            chosen = await client.get(PATH, headers=headers)
            assert chosen.headers["content-type"].startswith("application/openmetrics-text")
            assert chosen.text.endswith("# EOF\n")
            for version in ("x", "1.x", "9" * 5000):
                for kind in ("text/plain", "application/openmetrics-text"):
                    headers["accept"] = f"{kind};version={version}"
                    assert (await client.get(PATH, headers=headers)).status_code == 200
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("client", "headers", "may"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {"authorization": "Bearer wrong"}, True),
        ("10.0.0.9", {}, False),
        ("10.0.0.9", {"authorization": "Bearer wrong"}, False),
        ("10.0.0.9", {"authorization": "Bearer the scraper's"}, True),
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.9"}, False),
        ("127.0.0.1", {"forwarded": "for=10.0.0.9"}, False),
        (
            "127.0.0.1",
            {"x-real-ip": "10.0.0.9", "authorization": "Bearer the scraper's"},
            True,
        ),
        (None, {}, False),
    ],
)
def test_the_rule(client: str | None, headers: dict[str, str], may: bool) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"client": (client, 1) if client else None, "headers": pairs}
    rule = reader_check(lambda token: token == "the scraper's")
    if may:
        rule(scope)
    else:
        with pytest.raises(AuthenticationFailed):
            rule(scope)


class Part:
    """One process; ``metrics_process.py``."""

    def __init__(self, port: int, folder: Path, index: int) -> None:
        script = Path(__file__).with_name("metrics_process.py")
        command = [sys.executable, str(script), str(port), str(folder), str(index)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0


@contextmanager
def parts(folder: Path, number: int) -> Iterator[list[Part]]:
    found = [Part(0, folder, 0)]
    found += [Part(found[0].port, folder, index) for index in range(1, number)]
    try:
        yield found
    finally:
        for part in found:
            part.kill()


def get(port: int, path: str) -> str:
    # A connection each: the kernel chooses the process.
    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return str(answer.read(), "utf-8")


def requests(port: int) -> float:
    for family in text_string_to_metric_families(get(port, PATH)):
        if family.name == "opsgpt_requests":
            return sum(sample.value for sample in family.samples)
    raise AssertionError("no such family")


def until(port: int, expected: float) -> None:
    """Another process's last second may be missing in what one tells."""
    for _ in range(200):
        if requests(port) == expected:
            return
        time.sleep(0.05)
    pytest.fail(f"{requests(port)} requests were counted, not {expected}")


def test_processes_on_one_port_answer_as_one(tmp_path: Path) -> None:
    rng = random.Random(4)
    with parts(tmp_path, 3) as found:
        port = found[0].port
        answered = [json.loads(get(port, "/count"))["index"] for _ in range(60)]
        assert set(answered) == {0, 1, 2}
        until(port, 60)

        # Killed one after another, they begin again where they were seen last.
        seen = 60.0
        for _ in range(3):
            for _ in range(10):
                get(port, "/count")
            shown = requests(port)
            assert shown >= seen
            index = rng.randrange(3)
            found[index].kill()
            found[index] = Part(port, tmp_path, index)
            seen = requests(port)
            assert seen >= shown

        # One that ends as it should loses nothing.
        found[0].stop()
        before = requests(port)
        found[0] = Part(port, tmp_path, 0)
        assert requests(port) >= before
        text = get(port, PATH)
    numbers = set(re.findall(r'process_start_time_seconds\{process="(\d)"\}', text))
    assert numbers == {"0", "1", "2"}
    assert "opsgpt_gateway_processes 3.0" in text
