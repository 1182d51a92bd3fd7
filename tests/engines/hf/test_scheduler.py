import random

import pytest

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import WORTH_WAITING, Plan, Scheduler
from dev_opsgpt.engines.hf.sequence import Sampling

SOURCE = random.Random(5)


def sequence(length: int) -> Running:
    return Running([SOURCE.randrange(1000) for _ in range(length)], Sampling(max_tokens=100))


def scheduler(
    blocks: int = 64,
    parallel: int = 8,
    prefill: int = 40,
    whole: bool = False,
    states: bool = False,
) -> Scheduler:
    pool = BlockPool(blocks, reuse=not states)
    return Scheduler(
        pool, parallel=parallel, prefill_tokens=prefill, states=states or whole, whole=whole
    )


def step(scheduler: Scheduler) -> Plan:
    """One step with a token of no meaning for whom it is due."""
    plan = scheduler.plan()
    for work in plan.works:
        last = work.last
        scheduler.done(work)
        if last:
            work.sequence.append(7)
    return plan


def counts(plan: Plan) -> list[int]:
    return [work.count for work in plan.works]


def test_nobody_is_an_empty_plan() -> None:
    assert scheduler().plan().works == []


def test_a_long_prompt_comes_in_chunks_beside_the_tokens_of_others() -> None:
    made = scheduler()
    made.add(early := sequence(5))
    step(made)
    made.add(sequence(100))
    seen = [counts(step(made)) for _ in range(4)]
    assert seen == [[1, 40], [1, 40], [1, 20], [1, 1]]
    assert early.generated == 5


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    made = scheduler()
    made.add(sequence(500))
    step(made)
    made.add(short := sequence(25))
    plan = step(made)
    assert short.generated == 1
    assert sorted(counts(plan)) == [15, 25]


def test_the_oldest_prompt_goes_on_under_a_stream_of_short_ones() -> None:
    made = scheduler(blocks=400, parallel=200)
    made.add(long := sequence(200))
    for _ in range(20):
        made.add(sequence(35))
        made.add(sequence(35))
        step(made)
    assert long.generated > 0


def test_parallel_bounds_those_that_run() -> None:
    made = scheduler(parallel=2)
    for _ in range(3):
        made.add(sequence(5))
    assert len(step(made).works) == 2
    made.remove(made.running[0])
    assert len(step(made).works) == 2
    assert not made.waiting


def test_whole_prompts_are_computed_one_a_step() -> None:
    made = scheduler(whole=True, blocks=200)
    made.add(sequence(90))
    made.add(sequence(70))
    assert [counts(step(made)) for _ in range(3)] == [[90], [1, 70], [1, 1]]


def test_whole_prompts_have_room_for_the_answer_before_they_begin() -> None:
    made = scheduler(blocks=12, whole=True)
    for _ in range(2):
        made.add(sequence(20))
    for _ in range(100):
        plan = step(made)
        assert len(plan.works) == 1
        assert not plan.preempted


def test_prompts_of_models_with_states_come_in_chunks_and_have_room_for_the_answer() -> None:
    made = scheduler(states=True, blocks=20)
    made.add(sequence(90))
    made.add(second := sequence(70))
    assert [counts(step(made)) for _ in range(3)] == [[40], [40], [10]]
    assert list(made.waiting) == [second]


def continued(one: Running, more: int) -> Running:
    return Running(one.tokens + sequence(more).tokens, Sampling(max_tokens=100))


def test_a_state_is_handed_on_to_the_longest_beginning() -> None:
    made = scheduler(states=True, parallel=3)
    made.add(first := sequence(30))
    step(made)
    made.add(second := continued(first, 4))
    step(made)
    assert made.end(first)
    assert made.end(second)
    made.add(third := continued(second, 9))
    plan = step(made)
    assert plan.heirs == [(second, third)]
    assert third.cached == len(second.tokens) - 1
    assert counts(plan) == [10]
    made.add(other := sequence(40))
    assert step(made).heirs == []
    assert other.cached == 0


def test_there_are_no_more_states_than_may_run() -> None:
    made = scheduler(states=True, parallel=2)
    made.add(first := sequence(30))
    step(made)
    made.end(first)
    made.add(sequence(5))
    assert step(made).dropped == []
    made.add(sequence(5))
    assert step(made).dropped == [first]


def test_what_has_ended_makes_room() -> None:
    made = scheduler(states=True, blocks=12)
    made.add(first := sequence(30))
    step(made)
    made.end(first)
    made.add(second := sequence(90))
    assert step(made).dropped == [first]
    assert made.running == [second]


@pytest.mark.parametrize("kept", [{"whole": True}, {"states": False}])
def test_only_states_are_kept(kept: dict[str, bool]) -> None:
    made = scheduler(**kept)
    made.add(first := sequence(30))
    step(made)
    assert not made.end(first)
    assert made.empty


@pytest.mark.parametrize("seed", range(10))
def test_random_turns_lose_no_block_and_no_state(seed: int) -> None:
    source = random.Random(seed)
    pool = BlockPool(40, reuse=False)
    made = Scheduler(pool, parallel=4, prefill_tokens=30, states=True)
    said, states = [sequence(9)], dict[Running, int]()
    heirs = 0
    for turn in range(2000):
        if turn % 3 == 0:
            begun = source.choice(said).tokens[: source.choice([20, 200])]
            made.add(new := Running([*begun, *sequence(9).tokens], Sampling(max_tokens=50)))
            said = [*said[-20:], new]
        plan = step(made)
        assert not plan.preempted
        for one in plan.dropped:
            del states[one]
        for old, new in plan.heirs:
            heirs += 1
            assert new.tokens[: states[old]] == old.tokens[: states[old]]
            states[new] = states.pop(old)
        for work in plan.works:
            assert states.get(work.sequence, 0) == work.start
            states[work.sequence] = work.start + work.count
        for one in made.everyone():
            if source.random() < 0.02:
                made.discard(one)
                states.pop(one, None)
            elif (one.generated >= 50 or source.random() < 0.1) and not made.end(one):
                states.pop(one, None)
        holding = {*made.running, *states}
        assert len(holding) <= 4
        assert pool.available == 40 - sum(len(one.table.blocks) for one in holding)
    assert heirs


def test_a_sequence_that_finds_no_room_waits() -> None:
    made = scheduler(blocks=4)
    made.add(first := sequence(3 * BLOCK - 1))
    made.add(second := sequence(2 * BLOCK))
    step(made)
    assert list(made.waiting) == [second]
    made.remove(first)
    step(made)
    assert made.running == [second]


def test_the_youngest_makes_room_and_comes_back() -> None:
    made = scheduler(blocks=6, prefill=200)
    made.add(old := sequence(2 * BLOCK - 1))
    made.add(young := sequence(2 * BLOCK - 1))
    preempted = []
    for _ in range(3 * BLOCK):
        preempted += step(made).preempted
    assert preempted[0] is young
    assert old.generated == 3 * BLOCK
    made.remove(old)
    before = young.generated
    while young.generated < before + 3:
        step(made)
    assert young.prompt_length == 2 * BLOCK - 1


def test_a_beginning_that_several_share_is_computed_once() -> None:
    made = scheduler(prefill=48)
    system = sequence(7 * BLOCK).tokens
    several = [Running([*system, 5000 + n], Sampling(max_tokens=9)) for n in range(4)]
    made.add(several[0])
    for one in several[1:]:
        made.add(one)
    made.add(other := sequence(5))
    steps = [step(made) for _ in range(4)]
    assert [len(plan.works) for plan in steps][:2] == [2, 2]
    assert other.generated == 4
    assert several[0].cached == 0
    # What is left of it is not worth waiting for.
    assert all((one.cached or 0) + WORTH_WAITING >= 7 * BLOCK for one in several[1:])
    made.remove(several[0])
    assert not made.waiting


@pytest.mark.parametrize("seed", range(10))
def test_random_traffic_ends_and_leaves_nothing(seed: int) -> None:
    source = random.Random(seed)
    made = Scheduler(pool := BlockPool(20), parallel=6, prefill_tokens=30)
    todo = [(sequence(source.randrange(1, 150)), source.randrange(1, 150)) for _ in range(40)]
    ends = {one: min(length, 20 * BLOCK - one.prompt_length) for one, length in todo}
    for turn in range(20_000):
        if todo and turn % 3 == 0:
            made.add(todo.pop()[0])
        running = len(made.running)
        plan = step(made)
        assert sum(count for count in counts(plan) if count > 1) <= 30
        assert len({work.sequence for work in plan.works}) == len(plan.works)
        assert running == 0 or plan.works
        for one in made.everyone():
            if one.generated >= ends[one] or source.random() < 0.001:
                made.remove(one)
        if not todo and made.empty:
            break
    assert made.empty
    assert pool.available == 20
