"""Two gateway processes on one port: limits, usage and metrics are those of both together."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.launcher.stack import Place, Service, until

pytestmark = pytest.mark.slow

RPM = 20
ASKED = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = Place(tmp_path_factory.mktemp("shared"), FSCHAT_OPENAI_API={"gateway_workers": 2})
    with place.start() as service:
        yield service.ready()


def admin(service: Service, method: str, path: str, body: Any = None) -> Any:
    """A call on a connection of its own, so that either process may get it."""
    headers = {"authorization": f"Bearer {service.place.running()['secret']}"}
    url = f"http://127.0.0.1:{service.place.gateway}{path}"
    answer = httpx.request(method, url, json=body, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


def ask(service: Service, key: str) -> httpx.Response:
    body = {
        "model": "tiny-chat",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
    }
    url = f"{service.place.base_url}/chat/completions"
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)


def counted(service: Service, **labels: str) -> float:
    """Requests that are over, by what one process says of all."""
    page = admin(service, "GET", "/metrics").text
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "opsgpt_requests_total" and labels.items() <= sample.labels.items()
    )


def recorded(service: Service, key: str) -> int:
    report = admin(service, "GET", f"/v1/usage?key={key}").json()
    return sum(row["requests"] for row in report["data"])


def test_what_is_done_to_a_key_holds_in_both_when_it_is_answered(service: Service) -> None:
    for number in range(5):
        made = admin(service, "POST", "/admin/keys", {"name": f"key {number}"}).json()
        assert {models(service, made["key"]) for _ in range(8)} == {200}
        admin(service, "DELETE", f"/admin/keys/{made['id']}")
        assert {models(service, made["key"]) for _ in range(8)} == {401}


def models(service: Service, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    url = f"{service.place.base_url}/models"
    return httpx.get(url, headers=headers, timeout=30, trust_env=False).status_code


def test_limits_usage_and_metrics_hold_across_processes(service: Service) -> None:
    made = admin(service, "POST", "/admin/keys", {"name": "shared", "rpm": RPM}).json()
    key, id_ = made["key"], made["id"]
    # Several at a time: all within less than a minute.
    with ThreadPoolExecutor(4) as pool:
        statuses = [
            answer.status_code for answer in pool.map(ask, *[[service] * ASKED, [key] * ASKED])
        ]
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == RPM
    until(lambda: recorded(service, id_) == ASKED, "every request has left its record")
    # A process tells the others its figures a little later than the database its records.
    until(lambda: counted(service, status="429") == ASKED - RPM, "both have told their figures")
    for _ in range(6):
        assert counted(service, model="tiny-chat", status="200") == RPM
        assert counted(service, status="429") == ASKED - RPM

    fresh = admin(service, "POST", "/admin/keys", {"name": "fresh", "rpm": 1}).json()["key"]
    assert ask(service, fresh).status_code == 200
    until(lambda: counted(service, status="200") == RPM + 1, "both have told their figures")
    killed, _ = service.roles("gateway")
    os.kill(killed, signal.SIGKILL)
    service.expect("was killed by signal 9")
    until(lambda: len(service.roles("gateway")) == 2, "it is started again")
    service.expect(f"{service.place.base_url} again")
    # Counts outlive a process, and so does what a key has used of its minute.
    assert counted(service, model="tiny-chat", status="200") == RPM + 1
    assert ask(service, fresh).status_code == 429

    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    (file,) = service.place.folder.parent.glob("data/opsgpt.db")
    assert rows(file, id_) == ASKED


def rows(file: Path, key: str) -> int:
    connection = sqlite3.connect(file)
    try:
        (found,) = connection.execute("SELECT count(*) FROM usage WHERE key = ?", (key,)).fetchone()
    finally:
        connection.close()
    return int(found)
