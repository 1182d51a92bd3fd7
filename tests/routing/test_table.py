import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dev_opsgpt.routing.table import Table, Worker, split_queue


def worker(address: str, *models: str, **fields: object) -> Worker:
    row = Worker(address=address, models=models, kind="opsgpt")
    return msgspec.structs.replace(row, **fields)


def addresses(rows: list[Worker]) -> list[str]:
    return [row.address for row in rows]


def test_register_and_find() -> None:
    table = Table()
    assert table.register(worker("a", "m", "n"), now=0, lifetime=7)
    assert table.register(worker("b", "m"), now=0, lifetime=7)
    assert addresses(table.replicas("m")) == ["a", "b"]
    assert addresses(table.replicas("n")) == ["a"]
    assert table.replicas("nobody") == []
    assert table.models() == ["m", "n"]
    assert len(table) == 2
    assert table.get("a").models == ("m", "n")
    assert table.get("c") is None


def test_a_worker_that_registers_again_keeps_its_place() -> None:
    table = Table()
    for name in ("a", "b", "c"):
        table.register(worker(name, "m"), now=0, lifetime=7)
    assert not table.register(worker("a", "n", "m"), now=1, lifetime=7)
    assert addresses(table.replicas("m")) == ["a", "b", "c"]
    table.register(worker("b", "n"), now=1, lifetime=7)
    assert addresses(table.replicas("m")) == ["a", "c"]
    assert addresses(table.replicas("n")) == ["a", "b"]


def test_beats_carry_load_and_grow() -> None:
    table = Table()
    table.register(worker("a", "m"), now=0, lifetime=7)
    first = table.get("a").beats
    assert table.beat("a", now=1, running=3, waiting=2, limit=9)
    row = table.get("a")
    assert (row.queue_length, row.running, row.waiting, row.limit) == (5, 3, 2, 9)
    assert row.beats > first
    assert table.beat("a", now=1, running=0, waiting=0)
    assert table.get("a").limit == 9
    assert not table.beat("b", now=1, running=0, waiting=0)


def test_beats_grow_over_a_removal() -> None:
    table = Table()
    table.register(worker("a", "m"), now=0, lifetime=7)
    table.beat("a", now=1, running=0, waiting=0)
    before = table.remove("a").beats
    table.register(worker("a", "m"), now=2, lifetime=7)
    assert table.get("a").beats > before


def test_a_dispatch_counts_until_the_next_beat() -> None:
    table = Table()
    table.register(worker("a", "m", limit=2), now=0, lifetime=7)
    for _ in range(3):
        table.dispatched("a")
    row = table.get("a")
    assert (row.queue_length, row.running, row.waiting) == (3, 2, 1)
    table.beat("a", now=1, running=1, waiting=0)
    assert table.get("a").queue_length == 1
    table.dispatched("nobody")


def test_draining_workers_are_listed_but_get_nothing() -> None:
    table = Table()
    table.register(worker("a", "m"), now=0, lifetime=7)
    assert table.drain("a")
    assert table.replicas("m") == []
    assert addresses(table.replicas("m", draining=True)) == ["a"]
    assert addresses(table.workers()) == ["a"]
    assert table.models() == []
    table.update(table.get("a"), now=1)
    assert table.get("a").draining
    table.register(worker("a", "m"), now=1, lifetime=7)
    assert not table.get("a").draining, "it was started anew"
    assert table.drain("a", False)
    assert addresses(table.replicas("m")) == ["a"]
    assert not table.drain("b")


def test_expiry_is_strict_and_by_worker() -> None:
    table = Table()
    table.register(worker("ours", "m"), now=0, lifetime=7)
    table.register(worker("fastchat", "m"), now=0, lifetime=90)
    table.register(worker("attached", "m"), now=0, lifetime=None)
    assert table.expire(7) == []
    assert addresses(table.expire(7.01)) == ["ours"]
    table.beat("fastchat", now=50, running=0, waiting=0)
    assert table.expire(140) == []
    assert addresses(table.expire(140.5)) == ["fastchat"]
    assert table.expire(1e9) == []
    assert addresses(table.replicas("m")) == ["attached"]


def test_forgiven_time_is_no_silence() -> None:
    table = Table()
    table.register(worker("a", "m"), now=0, lifetime=7)
    table.forgive(30)
    assert table.expire(37) == []
    assert addresses(table.expire(37.5)) == ["a"]


def test_update_keeps_the_lifetime() -> None:
    table = Table()
    table.register(worker("a", "m"), now=0, lifetime=7)
    table.update(worker("a", "n"), now=5)
    assert table.expire(12) == []
    assert table.replicas("m") == []
    assert addresses(table.expire(12.5)) == ["a"]


@pytest.mark.parametrize(
    ("queue", "limit", "split"), [(0, 5, (0, 0)), (5, 5, (5, 0)), (9, 5, (5, 4))]
)
def test_split_queue(queue: int, limit: int, split: tuple[int, int]) -> None:
    assert split_queue(queue, limit) == split


def test_a_row_survives_the_wire() -> None:
    able = {"context_length": 9, "tools": True, "vision": False, "json_output": None}
    row = worker("http://a:1", "m", launcher="l", upstream_models={"m": "up"}, **able)
    assert msgspec.json.decode(msgspec.json.encode(row), type=Worker) == row


NAMES = st.sampled_from(["a", "b", "c", "d"])
MODELS = st.lists(st.sampled_from(["m", "n", "o"]), unique=True, min_size=1)


class AgainstAModel(RuleBasedStateMachine):
    """The table against the plainest thing that could be right: a list in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.plain: dict[str, tuple[tuple[str, ...], float, float | None, bool]] = {}
        self.now = 0.0

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=NAMES, models=MODELS, lifetime=st.sampled_from([None, 3.0, 7.0]))
    def register(self, name: str, models: list[str], lifetime: float | None) -> None:
        new = self.table.register(worker(name, *models), now=self.now, lifetime=lifetime)
        assert new == (name not in self.plain)
        self.plain[name] = (tuple(models), self.now, lifetime, False)

    @rule(name=NAMES, running=st.integers(0, 9), waiting=st.integers(0, 9))
    def beat(self, name: str, running: int, waiting: int) -> None:
        known = self.table.beat(name, now=self.now, running=running, waiting=waiting)
        assert known == (name in self.plain)
        if known:
            models, _, lifetime, draining = self.plain[name]
            self.plain[name] = (models, self.now, lifetime, draining)
            assert self.table.get(name).queue_length == running + waiting

    @rule(name=NAMES, drain=st.booleans())
    def drain(self, name: str, drain: bool) -> None:
        assert self.table.drain(name, drain) == (name in self.plain)
        if name in self.plain:
            self.plain[name] = (*self.plain[name][:3], drain)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        assert (self.table.remove(name) is not None) == (self.plain.pop(name, None) is not None)

    @rule()
    def expire(self) -> None:
        late = [
            name
            for name, (_, seen, lifetime, _) in self.plain.items()
            if lifetime is not None and self.now - seen > lifetime
        ]
        assert addresses(self.table.expire(self.now)) == late
        for name in late:
            del self.plain[name]

    @invariant()
    def agrees(self) -> None:
        assert addresses(self.table.workers()) == list(self.plain)
        for model in ("m", "n", "o"):
            serving = [name for name, row in self.plain.items() if model in row[0]]
            assert addresses(self.table.replicas(model, draining=True)) == serving
            live = [name for name in serving if not self.plain[name][3]]
            assert addresses(self.table.replicas(model)) == live
            assert (model in self.table.models()) == bool(live)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=40)
