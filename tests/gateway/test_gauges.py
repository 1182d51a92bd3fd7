from dev_opsgpt.gateway.gauges import fleet_sources
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.routing.breaker import BreakerOptions
from dev_opsgpt.routing.fleet import Fleet
from dev_opsgpt.routing.table import Worker

ONE, TWO = "http://10.0.0.1:20002", "http://10.0.0.2:20002"


def test_the_fleet_as_it_is() -> None:
    now = 100.0
    fleet = Fleet(breaker=BreakerOptions(failures=1, open_for=5.0))
    fleet.upsert(
        [
            Worker(address=ONE, models=("tiny",), kind="opsgpt"),
            Worker(address=TWO, models=("tiny", "alias"), kind="opsgpt"),
        ]
    )
    metrics = Metrics(fleet_sources(fleet, lambda: {"tiny": 3}, lambda: now))
    one, two = fleet.replicas()
    one.in_flight = 2
    two.breaker.failed(now)
    fleet.down(two, now)

    gauges = metrics.snapshot(now).gauges
    assert gauges["opsgpt_requests_in_flight"] == {("tiny", ONE): 2, ("tiny", TWO): 0}
    assert gauges["opsgpt_queue_depth"] == {("tiny",): 3, ("alias",): 0}
    assert gauges["opsgpt_breaker_state"] == {(ONE,): 0, (TWO,): 2}
    assert gauges["opsgpt_worker_up"] == {
        (ONE, "opsgpt", "tiny"): 1,
        (TWO, "opsgpt", "tiny"): 0,
        (TWO, "opsgpt", "alias"): 0,
    }

    now += 6
    gauges = metrics.snapshot(now).gauges
    assert gauges["opsgpt_breaker_state"][(TWO,)] == 1
    assert gauges["opsgpt_worker_up"][(TWO, "opsgpt", "tiny")] == 1

    fleet.remove([ONE, TWO], now)
    assert not metrics.snapshot(now).gauges["opsgpt_worker_up"]
