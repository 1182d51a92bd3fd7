from dev_opsgpt.routing import turns
from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.routing.residents import Host, Need, Resident
from dev_opsgpt.routing.turns import harmless, least


def host(memory: int | None, gpu: int | None = None, **sizes: int) -> Host:
    found = Host(bounds=Bounds(None, memory, gpu))
    for name, size in sizes.items():
        card = Card(name=name, names=(name,), size=size, gpu=10)
        part = Part(model=name, address=name, state="ready")
        found.cards[name] = card
        found.residents[name] = Resident(card, (part,), demanded=True)
    return found


def test_the_least_that_is_enough() -> None:
    assert least([30, 50, 20], 45) == 50
    assert least([30, 50, 20], 51) == 70
    assert least([30, 50, 20], 0) == least([], -1) == 0
    assert least([30], 31) == 31, "all of it is not enough"


def test_too_many_sums_are_not_looked_at() -> None:
    many = [2**n for n in range(40)]
    assert least(many, 2**40 - 2) == 2**40 - 2
    assert turns.MOST_SUMS < 2**20


def test_what_makes_no_difference() -> None:
    """One of 60 has to go for one of 50, and leaves 10 more than that."""
    there = host(100, a=60)
    assert harmless(there, {}, [Need(1, 50)], Need(1, 40))
    assert not harmless(there, {}, [Need(1, 50)], Need(1, 51))
    there = host(100, a=30, b=30)
    assert not harmless(there, {}, [Need(1, 50)], Need(1, 40)), "one of the two were enough"
    assert harmless(there, {}, [Need(1, 50)], Need(1, 20))
    assert not harmless(there, {}, [Need(1, 50), Need(1, 50)], Need(1, 20)), "both fit together"
    assert harmless(there, {}, [Need(1, 60), Need(1, 50)], Need(1, 10)), "these never do"
    there.residents["a"].demanded = False
    there.residents["a"].card = Card(name="a", names=("a",), size=30, stays=True)
    assert not harmless(there, {}, [Need(1, 60)], Need(1, 20)), "only b can go"


def test_what_is_of_another_kind_takes_no_room() -> None:
    there = host(None, 20, a=1, b=1)
    waiting = [Need(1, 0, 20)]
    assert harmless(there, {}, waiting, Need(1, 99, 0))
    assert not harmless(there, {}, waiting, Need(1, 0, 1))
