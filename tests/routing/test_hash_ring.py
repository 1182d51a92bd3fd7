from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.routing.hash_ring import POINTS, HashRing

KEYS = [f"session-{n}" for n in range(400)]
MEMBERS = st.lists(
    st.integers(0, 40).map(lambda n: f"http://10.0.0.{n}:20002"),
    min_size=1,
    max_size=12,
    unique=True,
)


def ring(members: list[str]) -> HashRing:
    made = HashRing()
    made.add(members)
    return made


def homes(of: HashRing) -> dict[str, str]:
    return {key: next(of.walk(key)) for key in KEYS}


def test_nobody_is_on_an_empty_ring() -> None:
    assert list(HashRing().walk("a")) == []


@settings(max_examples=50)
@given(members=MEMBERS, key=st.text())
def test_a_walk_meets_every_member_once(members: list[str], key: str) -> None:
    assert Counter(ring(members).walk(key)) == Counter(members)


@settings(max_examples=50)
@given(members=MEMBERS, seed=st.integers())
def test_the_order_of_coming_means_nothing(members: list[str], seed: int) -> None:
    mixed = Random(seed).sample(members, len(members))
    one, other = ring(members), HashRing()
    for member in mixed:
        other.add([member])
    assert all(list(one.walk(key)) == list(other.walk(key)) for key in KEYS[:20])


@settings(max_examples=50)
@given(members=MEMBERS)
def test_only_the_newcomer_takes_keys(members: list[str]) -> None:
    both = ring(members)
    before = homes(both)
    both.add(["http://new"])
    after = homes(both)
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} <= {"http://new"}
    assert len(moved) < 3 * len(KEYS) / (len(members) + 1)


@settings(max_examples=50)
@given(members=MEMBERS)
def test_only_keys_of_the_one_that_leaves_move(members: list[str]) -> None:
    one = ring(members)
    before = homes(one)
    one.remove(members[0])
    assert len(one) == POINTS * (len(members) - 1)
    if len(members) > 1:
        after = homes(one)
        assert all(after[key] == before[key] for key in KEYS if before[key] != members[0])
    one.add(members[:1])
    assert homes(one) == before


def test_shares_are_alike() -> None:
    members = [f"http://10.0.0.{n}:20002" for n in range(8)]
    one = ring(members)
    shares = Counter(next(one.walk(f"key {n}")) for n in range(8000))
    assert set(shares) == set(members)
    assert max(shares.values()) < 1.6 * 1000
    assert min(shares.values()) > 0.5 * 1000


def test_the_same_ring_in_every_process() -> None:
    one = ring(["http://a:1", "http://b:1", "http://c:1"])
    assert "".join(next(one.walk(key))[7] for key in KEYS[:12]) == "bbbbcbbaaabc"


def test_a_key_that_is_not_text() -> None:
    assert next(ring(["a"]).walk("\ud800")) == "a"


def test_a_member_that_was_never_there() -> None:
    one = ring(["a"])
    one.remove("b")
    assert len(one) == POINTS
