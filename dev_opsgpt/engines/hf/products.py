"""The products of attention, for single tokens and for pieces of a sequence: each by torch's fused
kernel, and by hand where a layer wants more than that has (soft caps, sinks) or it is slower.

Queries are heads x tokens x width, keys and values key heads x keys x width. Heads that share a key
head lie beside each other. Answers are tokens x heads x width.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from dev_opsgpt.engines.hf.visibility import Piece, Rows

MOST_SCORES = 1 << 25
"""Held at once, where they are made by hand: 512 tokens of 64 heads that look back at 128,000 have
a hundred times as many."""


def rows_by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rows: Rows,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Single tokens, each with as many keys, one token's after the other's; ``query`` is scaled.
    On a CPU three times as fast as the fused kernel."""
    heads, count, group = keys.shape[0], rows.count, query.shape[0] // keys.shape[0]
    asked = query.reshape(heads, group, count, -1).transpose(1, 2)
    seen = keys.view(heads, count, -1, keys.shape[-1])
    known = values.view(heads, count, -1, values.shape[-1])
    scores = torch.matmul(asked, seen.transpose(2, 3))
    if sinks is not None:
        sinks = sinks.view(heads, 1, group, 1).expand(heads, count, group, 1)
    weights = _weights(scores, rows.bias[:, None], softcap, sinks)
    return torch.matmul(weights, known).permute(1, 0, 2, 3).reshape(count, heads * group, -1)


def rows_by_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows, scale: float
) -> torch.Tensor:
    """The same by torch's kernel. The queries of heads that share a key stand as rows of one, so
    nothing is repeated."""
    heads, count, group = keys.shape[0], rows.count, query.shape[0] // keys.shape[0]
    asked = query.reshape(heads, group, count, -1).permute(2, 0, 1, 3)
    seen = keys.view(heads, count, -1, keys.shape[-1])
    known = values.view(heads, count, -1, values.shape[-1])
    bias = rows.bias[:, None, None].expand(count, 1, group, -1)
    found = scaled_dot_product_attention(
        asked, seen.transpose(0, 1), known.transpose(0, 1), attn_mask=bias, scale=scale
    )
    return found.reshape(count, heads * group, -1)


def piece_by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    piece: Piece,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Several tokens of one sequence, as many at a time as there is memory for their scores;
    ``query`` is scaled."""
    count = query.shape[1]
    bias = piece.bias
    if bias is None:
        bias = query.new_full((count, count), float("-inf")).triu_(1)
    some = max(1, MOST_SCORES // (query.shape[0] * keys.shape[1]))
    parts = [
        _by_hand(query[:, at : at + some], keys, values, bias[at : at + some], softcap, sinks)
        for at in range(0, count, some)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    heads, group, count = keys.shape[0], query.shape[0] // keys.shape[0], query.shape[1]
    asked = query.reshape(heads, group * count, -1)
    scores = torch.matmul(asked, keys.transpose(1, 2)).view(heads, group, count, -1)
    if sinks is not None:
        sinks = sinks.view(heads, group, 1, 1).expand(heads, group, count, 1)
    weights = _weights(scores, bias, softcap, sinks)
    found = torch.matmul(weights.view(heads, group * count, -1), values)
    return found.view(heads * group, count, -1).transpose(0, 1)


def piece_by_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, piece: Piece, scale: float
) -> torch.Tensor:
    """The same by torch's kernel."""
    group = query.shape[0] // keys.shape[0]
    shared = group > 1 and (piece.bias is None or query.device.type == "cpu")
    if group > 1 and not shared:
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    found = scaled_dot_product_attention(
        query[None],
        keys[None],
        values[None],
        attn_mask=piece.bias,
        is_causal=piece.bias is None,
        scale=scale,
        enable_gqa=shared,
    )
    return found[0].transpose(0, 1)


def _weights(
    scores: torch.Tensor, bias: torch.Tensor, softcap: float | None, sinks: torch.Tensor | None
) -> torch.Tensor:
    """Softmax in 32 bits. A sink is a score more that takes weight and gives no value."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + bias
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32).to(scores.dtype)
    with_sink = torch.cat([scores, sinks.to(scores.dtype)], -1)
    return torch.softmax(with_sink, -1, dtype=torch.float32)[..., :-1].to(scores.dtype)
