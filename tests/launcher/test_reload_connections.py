"""No connection is lost while gateways take over from each other: clients that open new ones all
the time, and one that keeps its own, get an answer to every request."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev_opsgpt.transport.patience import LAST_CALL
from tests.launcher.stack import Place, Service, until

pytestmark = pytest.mark.slow

BODY = json.dumps({"model": "nobody", "messages": []})


class Client:
    """Asks until it is told to stop, over one connection or a new one each time; ``failures`` is
    what went wrong."""

    def __init__(self, port: int, *, keep: bool) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._keep = keep
        self._stop = threading.Event()
        self.answers = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        sent = before = time.monotonic()
        # A little slower than it could, so that the gateways get the time to start.
        while not self._stop.wait(0.003):
            before, sent = sent, time.monotonic()
            try:
                self._connection.request("POST", "/v1/chat/completions", BODY)
                answer = self._connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                # A connection on which nothing comes for so long is closed, whoever is too busy.
                if not self._keep or time.monotonic() - before < LAST_CALL:
                    self.failures.append(repr(error))
                self._connection.close()
                continue
            self.answers += answer.status == 404
            if not self._keep:
                self._connection.close()
        self._connection.close()


@contextmanager
def asking(port: int) -> Iterator[list[Client]]:
    clients = [Client(port, keep=keep) for keep in (False, False, False, True)]
    try:
        yield clients
    finally:
        for client in clients:
            client.stop()


def change(service: Service, **keys: object) -> None:
    """Has new gateways take over, and waits until the old ones have ended."""
    before = set(service.roles("gateway"))
    section = service.place.values["FSCHAT_OPENAI_API"]
    section.update(keys)
    service.place.reload()
    count = section["gateway_workers"]
    until(lambda: len(service.roles("gateway")) == count, "only the new ones are left")
    assert not before & set(service.roles("gateway"))


def test_nothing_is_lost_while_all_gateways_are_replaced(
    tmp_path: Path, slow_model: dict[str, str]
) -> None:
    place = Place(
        tmp_path,
        online={"slow": slow_model},
        LLM_MODEL="slow",
        LLM_MODELs=["slow"],
        FSCHAT_OPENAI_API={"gateway_workers": 2},
    )
    with place.start() as service:
        service.ready()
        with asking(place.gateway) as clients:
            change(service, log_format="json")
            change(service, log_format="text")
            # One listens to what two had, and then three do.
            change(service, gateway_workers=1)
            change(service, gateway_workers=3, log_format="json")
        assert [client.failures for client in clients] == [[], [], [], []]
        assert all(client.answers for client in clients)
