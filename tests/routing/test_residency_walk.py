"""Ten thousand steps at random through the code that decides what is loaded."""

from collections import Counter
from random import Random

import pytest

from dev_opsgpt.routing.cards import Bounds, Card
from dev_opsgpt.routing.line import WISH_LASTS
from tests.routing.residency_world import World

STEPS = 10_000
SEEDS = range(4)
# What each walk is for, as ``World.counts`` calls it.
HAPPENED = ("load", "unload", "failed", "crashed", "by hand", "scaled", "kept by hand", "kept")


def card(name: str, size: int, keep_alive: float | None, replicas: int = 1) -> Card:
    return Card(
        name=name,
        names=(name,),
        on_demand=True,
        keep_alive=keep_alive,
        size=size,
        replicas=replicas,
    )


def world(seed: int) -> World:
    """Two machines; more models than either can hold, one of which cannot be loaded at all, and
    one that is too large for both."""
    cards = [card(f"m{i}", 10 * (i + 1), 20.0 + 10 * i, 1 + (i == 2)) for i in range(6)]
    cards.append(card("broken", 10, 30.0))
    cards.append(card("huge", 500, 30.0))
    return World(
        Random(seed),
        {"here": cards, "there": cards[:4]},
        {"here": Bounds(4, 120), "there": Bounds(2, None)},
        broken=frozenset({"broken"}),
        real={"m0": 3.0, "m3": 1.2, "m4": 0.5},
    )


def crowded(seed: int) -> World:
    """The same with less room, so that there is always somebody who waits for it; and nobody wants
    anything to stay."""
    found = world(seed)
    found.fails = 0.0
    found.bounds = {"here": Bounds(3, 120), "there": Bounds(2, 50)}
    found.__post_init__()
    return found


def crowd(world: World, steps: int) -> Counter[str]:
    """Requests for everything, large and small."""
    names = [f"m{i}" for i in range(6)]
    for _ in range(steps):
        match world.random.random():
            case x if x < 0.9:
                world.ask(world.random.choice([*names, "m0", "m1"]))
            case x if x < 0.93:
                world.hang_up()
            case x if x < 0.932:
                world.lose_launcher(world.random.choice(["here", "there"]))
            case _:
                pass
        world.pass_time(world.random.choice([0.1, 0.3, 1.0, 2.0]))
    return world.counts


def walk(world: World, steps: int) -> Counter[str]:
    """One step after the other; a few are rare."""
    names = [card.name for card in world.cards["here"]]
    # Some are wanted far more often than others, and not always the same.
    for number in range(steps):
        favourite = names[number // 500 % len(names)]
        match world.random.random():
            case x if x < 0.45:
                world.ask(world.random.choice([favourite, favourite, *names]))
            case x if x < 0.52:
                world.hang_up()
            case x if x < 0.53:
                world.unload(world.random.choice(names))
            case x if x < 0.535:
                world.crash()
            case x if x < 0.54:
                world.lose_launcher(world.random.choice(["here", "there"]))
            case x if x < 0.56:
                loaded = sorted({process.model for process in world.processes}) or names
                world.scale(world.random.choice(loaded), world.random.choice([-1, 1, 2]))
            case x if x < 0.562:
                world.keep(world.random.choice(names))
            case _:
                pass
        world.pass_time(world.random.choice([0.1, 0.1, 0.3, 1.0, 1.0, 5.0]))
    return world.counts


def rest(world: World) -> None:
    """Nobody asks any more: everything is answered, and everything goes, but for what somebody
    wants to stay, until somebody does not."""
    world.pass_time(400)
    assert not any(process.demanded for process in world.processes)
    for model in {process.model for process in world.processes}:
        world.unload(model)
    world.pass_time(10)
    assert not world.clients
    assert not world.processes
    assert not world.tasks
    assert not world.scalings
    assert not world.queue
    assert not world.residency.wishes
    assert all(not host.residents for host in world.residency.residents.hosts.values())
    assert not world.residency.residents.uses


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_and_nothing_leaks(seed: int) -> None:
    found = world(seed)
    counts = walk(found, STEPS // len(SEEDS))
    rest(found)
    answered = ("served", "refused", "timed out", "gone", "broken")
    assert sum(counts[answer] for answer in answered) == counts["asked"] > 900
    assert counts["served"] > counts["asked"] / 4
    # What the walk is for has happened, all of it.
    assert all(counts[what] for what in HAPPENED)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_is_overtaken_and_nobody_starves(seed: int) -> None:
    """``World.check_turn`` looks at every load."""
    found = crowded(seed)
    counts = crowd(found, STEPS // (2 * len(SEEDS)))
    assert counts["loaded while others wait"] + counts["waited longer than a turn"] > 5
    assert counts["timed out"] < counts["asked"] / 20
    rest(found)


@pytest.mark.soak
def test_for_a_long_time() -> None:
    for seed in range(100, 130):
        found = world(seed)
        walk(found, STEPS)
        rest(found)
        found = crowded(seed)
        crowd(found, STEPS)
        rest(found)


def test_a_wish_that_nobody_repeats_is_forgotten() -> None:
    found = world(0)
    found.residency.residents.gone("here")
    found.residency.residents.gone("there")
    found.residency.want("m0", found.now)
    found.residency.decide(found.now)
    assert found.residency.wishes == 1
    found.residency.decide(found.now + WISH_LASTS + 1)
    assert found.residency.wishes == 0
