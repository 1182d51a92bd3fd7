from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.routing.prefix_tree import (
    BLOCK,
    HOLDERS,
    LONGEST,
    NODE,
    Match,
    Node,
    PrefixTree,
)

ROOMY = 1 << 24
# Prompts of few kinds of blocks, so that they have much in common, and of odd lengths.
BLOCKS = st.sampled_from([letter * BLOCK for letter in (b"a", b"b", b"c")])
PROMPTS = st.builds(
    lambda blocks, rest: b"".join(blocks) + b"z" * rest,
    st.lists(BLOCKS, max_size=8),
    st.integers(0, BLOCK - 1),
)
NOTED = st.lists(st.tuples(PROMPTS, st.sampled_from("ABC")), max_size=30)


def note(tree: PrefixTree[str], prompt: bytes, holder: str) -> None:
    tree.note(prompt, tree.match(prompt), holder)


def held(match: Match[str]) -> dict[str, int]:
    """How much of the prompt each holder has seen."""
    return {h: end for step, end in zip(match.steps, match.ends, strict=True) for h in step.holders}


def common(one: bytes, other: bytes) -> int:
    """Whole blocks that two prompts begin with, in bytes; the naive way."""
    count = 0
    while (
        len(one) >= count + BLOCK
        and one[count : count + BLOCK] == other[count : count + BLOCK]
        and count < LONGEST
    ):
        count += BLOCK
    return count


def naive(noted: Iterable[tuple[bytes, str]], prompt: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    for other, holder in noted:
        length = common(prompt, other)
        if length:
            found[holder] = max(found.get(holder, 0), length)
    return found


def nodes(tree: PrefixTree[str]) -> list[Node[str]]:
    found, left = [], [tree._root]
    while left:
        node = left.pop()
        found.append(node)
        left += node.children.values()
    return found[1:]


@settings(max_examples=50)
@given(noted=NOTED, prompt=PROMPTS)
def test_the_longest_match_of_each_holder_is_that_of_a_naive_model(
    noted: list[tuple[bytes, str]], prompt: bytes
) -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    for other, holder in noted:
        note(tree, other, holder)
    match = tree.match(prompt)
    expected = naive(noted, prompt)
    assert held(match) == expected
    assert match.length == max(expected.values(), default=0)


@settings(max_examples=50)
@given(noted=NOTED)
def test_the_size_is_that_of_the_nodes(noted: list[tuple[bytes, str]]) -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    for prompt, holder in noted:
        note(tree, prompt, holder)
    found = nodes(tree)
    assert len(tree) == len(found)
    assert tree.size == sum(NODE + len(node.edge) for node in found)
    for node in found:
        assert all(child.edge[:BLOCK] == key for key, child in node.children.items())
        assert all(child.parent is node for child in node.children.values())


@settings(max_examples=50)
@given(seed=st.integers(), rounds=st.integers(1, 60))
def test_memory_is_bounded_and_nothing_is_made_up(seed: int, rounds: int) -> None:
    rng = Random(seed)
    budget = 2 * (LONGEST + NODE)
    tree: PrefixTree[str] = PrefixTree(budget)
    noted = []
    for _ in range(rounds):
        if noted and rng.random() < 0.5:
            begin = rng.choice(noted)[0]
            prompt = begin[: rng.randrange(len(begin) + 1)] + rng.randbytes(rng.randrange(9000))
        else:
            prompt = rng.randbytes(rng.randrange(40_000))
        noted.append((prompt, rng.choice("ABC")))
        note(tree, *noted[-1])
        assert tree.size <= budget
        asked = rng.choice(noted)[0]
        expected = naive(noted, asked)
        assert all(end <= expected[holder] for holder, end in held(tree.match(asked)).items())
    # What was noted last is there still.
    prompt, holder = noted[-1]
    assert held(tree.match(prompt)).get(holder, 0) == common(prompt, prompt)
    assert tree.size == sum(NODE + len(node.edge) for node in nodes(tree))


def test_what_was_noted_longest_ago_goes_first() -> None:
    rng = Random(1)
    tree: PrefixTree[str] = PrefixTree(2 * (LONGEST + NODE))
    system = rng.randbytes(100 * BLOCK)
    prompts = [system + rng.randbytes(200 * BLOCK) for _ in range(20)]
    for prompt in prompts:
        note(tree, prompt, "A")
    lengths = [tree.match(prompt).length for prompt in prompts]
    assert set(lengths) == {len(system), len(prompts[0])}
    assert lengths == sorted(lengths)


def test_a_conversation_that_goes_on_takes_one_node() -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    prompt = b""
    for turn in range(1, 20):
        prompt += bytes([turn]) * 3 * BLOCK
        note(tree, prompt, "A")
        assert len(tree) == 1
    note(tree, prompt + b"x" * BLOCK, "B")
    assert held(tree.match(prompt)) == {"A": len(prompt), "B": len(prompt)}


def test_of_a_very_long_prompt_only_the_beginning_counts() -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    prompt = Random(1).randbytes(5 * LONGEST + 7)
    note(tree, prompt, "A")
    assert tree.match(prompt).length == LONGEST
    assert tree.size == LONGEST + NODE


def test_so_many_holders_are_remembered() -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    for number in range(3 * HOLDERS):
        note(tree, b"s" * 5 * BLOCK, str(number))
    found = held(tree.match(b"s" * 5 * BLOCK))
    assert set(found) == {str(n) for n in range(2 * HOLDERS, 3 * HOLDERS)}


def test_prompts_without_a_whole_block() -> None:
    tree: PrefixTree[str] = PrefixTree(ROOMY)
    note(tree, b"hello", "A")
    assert len(tree) == 0
    assert tree.match(b"hello") == Match(0, [], [])


def test_a_budget_without_room() -> None:
    with pytest.raises(ValueError, match="room for two prompts"):
        PrefixTree(LONGEST)
