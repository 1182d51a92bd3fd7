"""What ``/metrics`` tells of the fleet: read when somebody asks, counted by nobody."""

from collections.abc import Callable, Iterator, Mapping

from dev_opsgpt.gateway.metrics import Read
from dev_opsgpt.gateway.snapshot import Labels
from dev_opsgpt.routing.breaker import State
from dev_opsgpt.routing.fleet import Fleet

_STATES: Mapping[State, float] = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


def fleet_sources(
    fleet: Fleet, waiting: Callable[[], Mapping[str, int]], clock: Callable[[], float]
) -> dict[str, Read]:
    """Sources for ``Metrics``. ``waiting`` gives how many requests wait for each model, ``clock``
    monotonic seconds."""

    def in_flight() -> Iterator[tuple[Labels, float]]:
        for replica in fleet.replicas():
            # A worker's requests are not told apart by its names; the first stands for all.
            yield (next(iter(replica.row.models), ""), replica.address), float(replica.in_flight)

    def up() -> Iterator[tuple[Labels, float]]:
        now = clock()
        for replica in fleet.replicas():
            down = replica.down_until > now or replica.doubted_since is not None
            for model in replica.row.models:
                yield (replica.address, replica.row.kind, model), 0.0 if down else 1.0

    def breakers() -> Iterator[tuple[Labels, float]]:
        now = clock()
        for replica in fleet.replicas():
            yield (replica.address,), _STATES[replica.breaker.state(now)]

    def depths() -> Iterator[tuple[Labels, float]]:
        found = dict.fromkeys(fleet.models(), 0) | dict(waiting())
        for model, depth in found.items():
            yield (model,), float(depth)

    return {
        "opsgpt_requests_in_flight": in_flight,
        "opsgpt_worker_up": up,
        "opsgpt_breaker_state": breakers,
        "opsgpt_queue_depth": depths,
    }
