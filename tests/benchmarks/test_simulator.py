"""The simulator: its parts by hand, and whole runs for what must hold whatever the figures."""

from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulator.__main__ import main
from benchmarks.simulator.engine import Job, PrefixStore, Replica
from benchmarks.simulator.figures import Counts
from benchmarks.simulator.report import Run, table
from benchmarks.simulator.scenario import Chats, Engine, Scenario
from benchmarks.simulator.scenarios import SCENARIOS, short
from benchmarks.simulator.simulation import Simulation
from benchmarks.simulator.workload import BYTES, Session, Workload
from dev_opsgpt.routing.policies import POLICIES

CHATS = Chats(rate=20, systems=4, system=400, turns=4, question=40, answer=30, think=2)
SMALL = Scenario("small", "four replicas", CHATS, replicas=4, seconds=6, warm_up=2)


def session(name: str, own: int, system: int = 0, shared: int = 160) -> Session:
    made = Session(name, system, shared, b"", 9)
    made.own = own
    return made


class Line:
    """A time line for one replica."""

    def __init__(self, engine: Engine, speed: float = 1.0) -> None:
        self.events: list[tuple[float, int, object, object]] = []
        self.firsts: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.replica = Replica(engine, speed, self.at, self.first, self.done)

    def at(self, time: float, call: object, argument: object) -> None:
        self.events.append((time, len(self.events), call, argument))

    def first(self, job: Job, now: float) -> None:
        self.firsts[job.session.name] = now

    def done(self, job: Job, now: float) -> None:
        self.ends[job.session.name] = now

    def run(self) -> None:
        done = 0
        while done < len(self.events):
            left = sorted(self.events[done:], key=lambda event: event[:2])
            self.events[done:] = left
            time, _, call, argument = self.events[done]
            done += 1
            call(argument, time)


ENGINE = Engine(prefill=1000, step=0.01, step_each=0.01, slots=2, cache=10_000, block=16)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_one_job_alone(speed: float) -> None:
    line = Line(ENGINE, speed)
    line.replica.submit(Job(session("a", 40), 11, 0.0, 0), 0.0)
    line.run()
    # 200 tokens to read and a step; then ten more tokens, 0.02 s each.
    assert line.firsts["a"] == pytest.approx(0.21 / speed)
    assert line.ends["a"] == pytest.approx((0.21 + 10 * 0.02) / speed)
    assert line.replica.load == 0


def test_more_jobs_than_slots_queue_in_the_order_they_came() -> None:
    line = Line(ENGINE)
    for name in "abcd":
        line.replica.submit(Job(session(name, 40), 6, 0.0, 0), 0.0)
    assert line.replica.load == 4
    line.run()
    assert list(line.firsts) == list("abcd")
    assert line.firsts["c"] > line.ends["a"]
    assert line.replica.load == 0


def test_sequences_slow_each_other_down() -> None:
    alone, both = Line(ENGINE), Line(ENGINE)
    both.replica.submit(Job(session("b", 40), 99, 0.0, 0), 0.0)
    for line in (alone, both):
        line.replica.submit(Job(session("a", 40), 99, 0.0, 0), 0.0)
        line.run()
    assert both.ends["a"] - both.firsts["a"] > 1.3 * (alone.ends["a"] - alone.firsts["a"])


def test_a_second_turn_reads_only_what_is_new() -> None:
    line = Line(ENGINE)
    chat = session("a", 40)
    line.replica.submit(Job(chat, 24, 0.0, 0), 0.0)
    line.run()
    chat.own += 24 + 16
    job = Job(chat, 2, 9.0, 0)
    line.replica.submit(job, 9.0)
    assert job.cached == 160 + 64


def test_what_was_used_longest_ago_leaves_the_store() -> None:
    store = PrefixStore(520, 1)
    for name in "abc":
        store.keep(session(name, 100), 100)
    assert [store.cached(session(name, 101)) for name in "abc"] == [260, 260, 260]
    store.keep(session("d", 100, system=1), 100)
    found = {name: store.cached(session(name, 101)) for name in "abc"}
    assert found == {"a": 160, "b": 160, "c": 260}
    assert store.cached(session("d", 101, system=1)) == 260


def test_a_conversation_without_its_system_prompt_is_not_cached() -> None:
    store = PrefixStore(1000, 1)
    store.keep(session("a", 100), 100)
    assert store.cached(session("a", 101, system=1)) == 0


@given(seed=st.integers(), capacity=st.integers(300, 2000))
def test_the_store_is_bounded(seed: int, capacity: int) -> None:
    rng, store = Random(seed), PrefixStore(capacity, 16)
    for _ in range(40):
        store.keep(session(rng.choice("abcdefg"), 0, rng.randrange(2)), rng.randrange(140))
        assert sum(store._kept.values()) == capacity - store._room <= capacity


def test_a_prompt_grows_by_what_is_said() -> None:
    work = Workload(CHATS, Random(1), 1)
    chat = work.begin()
    work.ask(chat)
    first, tokens = chat.prompt, chat.shared + chat.own
    work.answered(chat, 20)
    work.ask(chat)
    assert chat.prompt.startswith(first + b',{"role":"assistant"')
    assert len(msgspec.json.decode(chat.prompt + b"]")) == 4
    assert abs(len(first) - tokens * BYTES) < 100


def test_arrivals_have_their_rate_with_bursts_too() -> None:
    for burst in (1.0, 3.0, 5.0):
        chats = msgspec.structs.replace(CHATS, burst=burst, period=2.0)
        work, now, high, count = Workload(chats, Random(2), 1), 0.0, 0, 0
        while now < 2000:
            now += work.gap(now)
            count += 1
            high += now % 2 < 0.4
        assert count * chats.turns / now == pytest.approx(chats.rate, rel=0.05)
        assert high / count == pytest.approx(burst / 5, abs=0.03)


def test_popular_system_prompts() -> None:
    work = Workload(CHATS, Random(1), 1)
    uses = [0] * 4
    for _ in range(4000):
        uses[work.begin().system] += 1
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert [n / 4000 for n in uses] == pytest.approx(
        [1 / total, 1 / 2 / total, 1 / 3 / total, 1 / 4 / total], abs=0.03
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_figures(policy: str) -> None:
    one, other = Simulation(SMALL, policy, 7).run(), Simulation(SMALL, policy, 7).run()
    assert one.figures() == other.figures()
    assert one.open == 0
    assert one.figures() != Simulation(SMALL, policy, 8).run().figures()


@settings(max_examples=12)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    gateways=st.integers(1, 3),
    sticky=st.booleans(),
    burst=st.sampled_from([1.0, 3.0]),
    rate=st.sampled_from([2.0, 30.0, 90.0]),
    seed=st.integers(0, 99),
)
def test_every_request_is_answered(
    policy: str, gateways: int, sticky: bool, burst: float, rate: float, seed: int
) -> None:
    scenario = Scenario(
        "any",
        "",
        msgspec.structs.replace(CHATS, rate=rate, burst=burst),
        replicas=3,
        seconds=5,
        warm_up=1,
        speeds=(1.0, 0.5),
        gateways=gateways,
        sticky=sticky,
    )
    counts = Simulation(scenario, policy, seed).run()
    figures = counts.figures()
    assert counts.open == 0
    assert 0 <= figures.hit_rate <= counts.repeated <= 1
    assert figures.p50 <= figures.p99
    assert figures.requests > 0


def test_load_comes_at_the_rate_that_was_asked_for() -> None:
    scenario = msgspec.structs.replace(SMALL, seconds=60, warm_up=10)
    figures = Simulation(scenario, "least_load", 1).run().figures()
    assert figures.throughput == pytest.approx(CHATS.rate, rel=0.15)


def test_conversations_find_their_cache_by_affinity() -> None:
    rates = {
        policy: Simulation(SMALL, policy, 1).run().figures().hit_rate
        for policy in ("round_robin", "session_affinity", "prefix_cache")
    }
    assert rates["round_robin"] < rates["session_affinity"]
    assert rates["round_robin"] < rates["prefix_cache"]


def test_nothing_was_counted() -> None:
    figures = Counts(SMALL).figures()
    assert (figures.requests, figures.hit_rate, figures.p99) == (0, 0, 0)


def test_the_short_crowd_is_smaller() -> None:
    crowd = SCENARIOS[-1]
    assert (crowd.replicas, crowd.chats.rate) == (1000, 100_000)
    assert (short(crowd).replicas, short(crowd).chats.rate) == (100, 10_000)
    assert all(short(one).seconds <= one.seconds for one in SCENARIOS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "figures.json"
    chosen = ["--only", "uniform", "--policies", "round_robin", "lottery"]
    assert main(["--quick", *chosen, "--seed", "3", "--out", str(out)]) == 0
    runs = msgspec.json.decode(out.read_bytes(), type=list[Run])
    assert [list(run.policies) for run in runs] == [["round_robin", "lottery"]]
    printed = capsys.readouterr().out
    assert table(runs[0]) in printed
    assert "| round_robin |" in printed
