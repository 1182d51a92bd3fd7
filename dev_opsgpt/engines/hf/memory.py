"""How many tokens' state the free memory holds."""

import torch

from dev_opsgpt.engines.hf.devices import free_on
from dev_opsgpt.engines.memory import available_memory

SHARES = {"cuda": 0.85}
SHARE_ELSEWHERE = 0.4
"""Of what is free: a card is for its model alone, a machine's memory is not."""


def tokens_that_fit(device: torch.device, bytes_per_token: int, *, most: int) -> int:
    """At most ``most``; that many, where nobody knows what a token takes or what is free."""
    free = free_on(device) if device.type == "cuda" else available_memory()
    if bytes_per_token == 0 or free is None:
        return most
    share = SHARES.get(device.type, SHARE_ELSEWHERE)
    return min(most, int(share * free) // bytes_per_token)
