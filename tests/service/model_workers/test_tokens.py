"""The estimate of token counts."""

import pytest

from dev_opsgpt.service.model_workers.tokens import estimate, estimate_messages


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("four", 1), ("fives", 2), ("你好", 2), ("你好 ok", 3), ("да", 1)],
)
def test_estimate(text: str, tokens: int) -> None:
    assert estimate(text) == tokens


def test_messages_cost_more() -> None:
    assert estimate_messages(["four", ""]) == 9
