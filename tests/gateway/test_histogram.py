from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.histogram import Histogram
from dev_opsgpt.gateway.metric_names import FAMILIES

seconds = st.floats(min_value=0, max_value=1e6)
bounds = st.lists(seconds, min_size=1, max_size=20, unique=True).map(sorted)


@given(bounds, st.lists(seconds))
def test_each_value_is_in_the_one_step_it_belongs_to(
    bounds: list[float], found: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in found:
        histogram.observe(value)
    edges = [float("-inf"), *bounds, float("inf")]
    expected = [sum(low < value <= high for value in found) for low, high in pairwise(edges)]
    assert histogram.counts == expected
    assert histogram.total == pytest.approx(sum(found))


def test_bounds_rise() -> None:
    for family in FAMILIES.values():
        assert all(low < high for low, high in pairwise(family.bounds)), family.name
        assert bool(family.bounds) == (family.kind == "histogram")
