"""What a request costs, by the price table of its model's route."""

from typing import Protocol

from dev_opsgpt.protocol.record import Record

_MILLION = 1_000_000


class Prices(Protocol):
    """Prices of a million tokens, all in one unit, as a route of the configuration has them."""

    @property
    def input_price(self) -> float:
        """Of prompt tokens."""

    @property
    def cached_input_price(self) -> float | None:
        """Of prompt tokens that the model had cached; None: as ``input_price``."""

    @property
    def output_price(self) -> float:
        """Of completion tokens."""


def cost_of(prompt: int, completion: int, cached: int, prices: Prices) -> float:
    """The price of so many tokens; ``cached`` is the part of ``prompt`` that was cached."""
    cached = min(cached, prompt)
    cached_price = prices.cached_input_price
    if cached_price is None:
        cached_price = prices.input_price
    return (
        (prompt - cached) * prices.input_price
        + cached * cached_price
        + completion * prices.output_price
    ) / _MILLION


def cost(record: Record, prices: Prices) -> float | None:
    """What the request cost; None where nobody said how many tokens it took."""
    if record.prompt_tokens is None and record.completion_tokens is None:
        return None
    return cost_of(
        record.prompt_tokens or 0,
        record.completion_tokens or 0,
        record.cached_tokens or 0,
        prices,
    )
