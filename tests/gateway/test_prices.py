"""What a request costs."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.config.servers import RouteSettings
from dev_opsgpt.gateway.prices import cost, cost_of
from dev_opsgpt.protocol.record import Record

TOKENS = st.integers(0, 10**9)
PRICE = st.floats(0, 10**4)


@dataclass
class Table:
    input_price: float = 0.0
    cached_input_price: float | None = None
    output_price: float = 0.0


def record(prompt: int | None, completion: int | None, cached: int | None) -> Record:
    return Record(
        "r",
        0.0,
        "/v1/chat/completions",
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
    )


def test_a_route_of_the_configuration_is_a_price_table() -> None:
    route = RouteSettings(input_price=2.0, cached_input_price=0.5, output_price=8.0)
    assert cost(record(1_000_000, 500_000, 400_000), route) == pytest.approx(1.2 + 0.2 + 4.0)


def test_cached_tokens_cost_what_others_do_unless_told() -> None:
    assert cost(record(1000, 0, 900), Table(3.0)) == pytest.approx(0.003)
    assert cost(record(1000, 0, 900), Table(3.0, 0.0)) == pytest.approx(0.0003)


def test_unknown_tokens() -> None:
    assert cost(record(None, None, None), Table(1.0, None, 1.0)) is None
    assert cost(record(None, 1_000_000, None), Table(1.0, None, 5.0)) == 5.0
    assert cost(record(1_000_000, None, None), Table(1.0, None, 5.0)) == 1.0


@given(TOKENS, TOKENS, TOKENS, PRICE, PRICE, PRICE)
def test_never_below_zero_nor_above_all_at_the_highest_price(
    prompt: int, completion: int, cached: int, given: float, taken: float, cached_price: float
) -> None:
    found = cost_of(prompt, completion, cached, Table(given, cached_price, taken))
    highest = max(given, taken, cached_price) * (prompt + completion) / 1_000_000
    assert 0 <= found <= highest * (1 + 1e-9)
