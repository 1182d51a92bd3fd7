from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.config.origin import Layer, Origin, deep_merge

_trees = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
_tables = st.dictionaries(st.sampled_from("abc"), _trees, max_size=3)


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {p: v for k, inner in tree.items() for p, v in _leaves(inner, (*path, k)).items()}


@given(_tables)
def test_merge_with_nothing_or_itself_changes_nothing(table: dict[str, Any]) -> None:
    assert deep_merge(table, {}) == table
    assert deep_merge({}, table) == table
    assert deep_merge(table, table) == table


@given(_tables, _tables)
def test_what_the_higher_says_is_found_as_it_says_it(
    low: dict[str, Any], high: dict[str, Any]
) -> None:
    merged = deep_merge(low, high)
    for path, value in _leaves(high).items():
        found: Any = merged
        for key in path:
            found = found[key]
        assert value == {} or found == value


@given(_tables, _tables)
def test_merge_keeps_what_only_the_lower_says_and_changes_neither(
    low: dict[str, Any], high: dict[str, Any]
) -> None:
    before = deepcopy((low, high))
    merged = deep_merge(low, high)
    assert (low, high) == before
    assert set(merged) == set(low) | set(high)
    assert all(merged[key] == low[key] for key in set(low) - set(high))


def test_later_layers_win_and_are_named() -> None:
    low = Layer("low", {"a": {"x": 1, "y": 2}, "l": [1, 2]})
    high = Layer("high", {"a": {"y": 3}})
    origin = Origin((low, high))
    assert origin.merged() == {"a": {"x": 1, "y": 3}, "l": [1, 2]}
    assert origin.source_of(("a", "x")) == "low"
    assert origin.source_of(("a", "y")) == "high"
    assert origin.source_of(("l", 1)) == "low"
    assert origin.source_of(("a", "missing")) == "high"
    assert origin.source_of(("nowhere",)) == "configuration"
