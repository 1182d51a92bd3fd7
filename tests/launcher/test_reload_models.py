"""Models come, go and change in a running service, and no stream breaks. The tests stand in the
order in which they run."""

import threading
from collections.abc import Iterator

import pytest

from tests.launcher.stack import PATIENCE, Answer, Place, Service, until
from tests.support.ports import free_ports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, slow_model: dict[str, str]
) -> Iterator[Service]:
    online = {name: dict(slow_model) for name in ("slow", "other")}
    online["slow"]["version"] = "m-15"
    keys = {"LLM_MODEL": "slow", "LLM_MODELs": ["slow"]}
    place = Place(tmp_path_factory.mktemp("reload"), online=online, **keys)
    # Without a port of its own it can be there twice.
    del place.values["FSCHAT_MODEL_WORKERS"]["slow"]
    place.write()
    with place.start() as service:
        yield service.ready()


def test_nothing_has_changed(service: Service) -> None:
    assert service.place.reload() == "Nothing has changed.\n"


def test_added_model_is_served_and_a_stream_goes_on(
    service: Service, slow_model: dict[str, str]
) -> None:
    answer = Answer(service, "slow")
    assert service.status("more") == 404
    service.place.values["ONLINE_LLM_MODEL"]["more"] = dict(slow_model)
    assert "more: started" in service.place.reload()
    until(lambda: service.status("more") == 200, "an answer")
    assert answer.whole()


def test_removed_model_is_gone_when_its_own_streams_have_ended(service: Service) -> None:
    answer, other = Answer(service, "slow"), Answer(service, "other")
    del service.place.values["ONLINE_LLM_MODEL"]["other"]
    assert "other: removed" in service.place.reload()
    until(lambda: service.status("other") == 404, "it is unknown")
    assert other.whole()
    assert answer.whole()


def test_changed_model_serves_on_while_its_old_streams_end(service: Service) -> None:
    answer = Answer(service, "slow")
    before = service.models()["slow"]
    codes: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            codes.add(service.status("slow"))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    service.place.values["ONLINE_LLM_MODEL"]["slow"]["limit_worker_concurrency"] = 20
    assert "slow: replaced" in service.place.reload()
    until(lambda: service.models()["slow"] != before, "the new one serves")
    over.set()
    for thread in asking:
        thread.join(PATIENCE)
    assert codes == {200}
    assert answer.whole()

    def limits() -> list[int]:
        rows = service.controller("/list_workers")["workers"]
        return [row["limit"] for row in rows if "slow" in row["models"]]

    until(lambda: limits() == [20], "only the new one is left")


def test_model_with_a_port_of_its_own_leaves_before_it_comes_again(
    service: Service, slow_model: dict[str, str]
) -> None:
    (port,) = free_ports(1)
    place = service.place
    place.values["ONLINE_LLM_MODEL"]["fixed"] = {**slow_model, "port": port}
    assert "fixed: started" in service.place.reload()
    until(lambda: service.status("fixed") == 200, "an answer")
    answer = Answer(service, "fixed")
    place.values["ONLINE_LLM_MODEL"]["fixed"]["queue_size"] = 3
    assert (
        f"fixed: replaced, the old one first: the port {port} is its own" in service.place.reload()
    )
    assert answer.whole()
    assert service.models()["fixed"].endswith(f":{port}")
    until(lambda: service.status("fixed") == 200, "an answer")


def test_model_that_somebody_stopped_stays_stopped(service: Service) -> None:
    reply = service.controller("/release_worker", {"model_name": "more"})
    assert reply["code"] == 200, reply
    service.place.values["ONLINE_LLM_MODEL"]["more"]["queue_size"] = 4
    assert "more: changed, and stays stopped" in service.place.reload()
    assert "more" not in service.models()


def test_new_models_can_be_started_by_order_of_the_controller(
    service: Service, slow_model: dict[str, str]
) -> None:
    idle = {key: value for key, value in slow_model.items() if key != "provider"}
    service.place.values["ONLINE_LLM_MODEL"]["idle"] = idle
    service.place.reload()
    body = {"model_name": "slow", "new_model_name": "more", "keep_origin": True}
    reply = service.controller("/release_worker", body)
    assert reply["code"] == 200, reply
    until(lambda: service.status("more") == 200, "an answer")
