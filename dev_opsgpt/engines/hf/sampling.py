"""The next token of each sequence of a batch, computed for all at once.

The order is that of transformers' ``generate``: the bias, repetition penalty with OpenAI's presence
and frequency penalties, the constraint, temperature, top_k, top_p, min_p. The token is found in the
cumulated probabilities by one number a sequence, from its own source.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dev_opsgpt.engines.hf.running import Running

CANDIDATES = 256
"""How many of the likeliest tokens are sorted for top_p, if their mass suffices."""
_IMPOSSIBLE = -9999.0
"""What OpenAI says for the logarithm of 0, which JSON has no number for."""
_LARGE = 1e30
"""As large as a score may get by penalties."""
_GREEDY = 1e-4
"""A temperature below is as good as 0, and would overflow."""


@dataclass(frozen=True)
class Choice:
    """A token; ``valid`` is False where the model's numbers were none, or left no choice."""

    token: int
    logprob: float
    top: list[tuple[int, float]]
    valid: bool


def choose(
    logits: torch.Tensor, sequences: Items[Running], masks: Items[NDArray[np.int32] | None]
) -> list[Choice]:
    """``logits`` are sequences x vocabulary as the model gave them; ``masks`` as of a
    ``Constraint``. One copy to the host."""
    raw = logits.float()
    scores = adjusted(raw, sequences, masks)
    tokens = scores.argmax(-1)
    hot = [row for row, one in enumerate(sequences) if one.sampling.temperature >= _GREEDY]
    if hot:
        drawn = _draw(scores, [sequences[row] for row in hot], hot)
        tokens[_on(hot, scores.device)] = drawn
    return _read(_report(raw, scores, tokens, sequences), sequences)


def adjusted(
    raw: torch.Tensor, sequences: Items[Running], masks: Items[NDArray[np.int32] | None]
) -> torch.Tensor:
    """The scores after bias, penalties and constraint; ``raw`` stays as it is."""
    scores = raw
    biased = [
        (row, token, value)
        for row, one in enumerate(sequences)
        for token, value in one.sampling.logit_bias.items()
    ]
    if biased:
        scores = raw.clone()
        rows, ids, values = zip(*biased, strict=True)
        places = _on(rows, raw.device), _on(ids, raw.device)
        scores.index_put_(places, torch.tensor(values, device=raw.device), accumulate=True)
    penalised = [(row, one) for row, one in enumerate(sequences) if _penalised(one)]
    if penalised:
        scores = _penalise(scores.clone() if scores is raw else scores, penalised)
    bound = [(row, mask) for row, mask in enumerate(masks) if mask is not None]
    if bound:
        scores = scores.clone() if scores is raw else scores
        allowed = _bits(np.stack([mask for _, mask in bound]), raw.shape[1], raw.device)
        place = _on([row for row, _ in bound], raw.device)
        scores[place] = scores[place].masked_fill(~allowed, float("-inf"))
    return scores


def _penalised(one: Running) -> bool:
    given = one.sampling
    return bool(given.presence_penalty or given.frequency_penalty) or given.repetition_penalty != 1


def _penalise(scores: torch.Tensor, penalised: Items[tuple[int, Running]]) -> torch.Tensor:
    """Touches only the tokens that each sequence has seen."""
    rows, ids, counts, settings = [], [], [], []
    for row, one in penalised:
        given = one.sampling
        seen = one.seen() if given.repetition_penalty != 1 else list(one.counts)
        rows.append(np.full(len(seen), row))
        ids.append(np.array(seen, np.int64))
        counts.append(np.fromiter((one.counts[token] for token in seen), np.int64, len(seen)))
        each = (
            max(given.repetition_penalty, 1 / _LARGE),
            given.frequency_penalty,
            given.presence_penalty,
        )
        settings.append(np.broadcast_to(np.array(each, np.float32), (len(seen), 3)))
    whole = np.stack([np.concatenate(part) for part in (rows, ids, counts)])
    row, token, count = torch.from_numpy(whole).to(scores.device)
    repetition, frequency, presence = (
        torch.from_numpy(np.concatenate(settings)).to(scores.device).unbind(1)
    )
    values = scores[row, token]
    values = torch.where(values < 0, values * repetition, values / repetition)
    # Finite, so that they can still be compared after the temperature.
    values = values.clamp(-_LARGE, _LARGE)
    scores[row, token] = values - frequency * count - presence * (count > 0)
    return scores


def _bits(masks: NDArray[np.int32], width: int, device: torch.device) -> torch.Tensor:
    """Bitmasks as booleans, rows x ``width``; what they do not cover is not allowed."""
    words = torch.from_numpy(masks).to(device)
    places = torch.arange(32, dtype=torch.int32, device=device)
    bits = ((words[:, :, None] >> places) & 1).bool().flatten(1)
    if bits.shape[1] < width:
        bits = torch.nn.functional.pad(bits, (0, width - bits.shape[1]))
    return bits[:, :width]


def _draw(scores: torch.Tensor, sequences: list[Running], rows: list[int]) -> torch.Tensor:
    """A token for each of the sequences, whose scores are the ``rows``."""
    device = scores.device
    settings = [
        (s.temperature, s.top_p, s.min_p, one.number())
        for one, s in ((one, one.sampling) for one in sequences)
    ]
    temperature, top_p, min_p, number = torch.tensor(
        settings, dtype=torch.float64, device=device
    ).unbind(1)
    if len(rows) < len(scores):
        scores = scores[_on(rows, device)]
    scores = scores / temperature.float()[:, None]
    width = scores.shape[1]
    limits = [min(one.sampling.top_k or width, width) for one in sequences]
    cut = [i for i, one in enumerate(sequences) if limits[i] < width or one.sampling.top_p < 1]
    if not cut:
        return _find(_likely(torch.softmax(scores, -1), min_p), number)
    whole = sorted({*range(len(sequences))} - {*cut})
    tokens = torch.empty(len(sequences), dtype=torch.int64, device=device)
    if whole:
        place = _on(whole, device)
        tokens[place] = _find(
            _likely(torch.softmax(scores[place], -1), min_p[place]), number[place]
        )
    place = _on(cut, device)
    limit = _on([limits[i] for i in cut], device)
    some = max([CANDIDATES, *(limits[i] for i in cut if limits[i] < width)])
    weights, ids = _truncated(scores[place], limit, top_p[place], min(some, width))
    found = _find(_likely(weights, min_p[place]), number[place])
    tokens[place] = ids.gather(1, found[:, None])[:, 0]
    return tokens


def _truncated(
    scores: torch.Tensor, limit: torch.Tensor, top_p: torch.Tensor, some: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, 0 outside of top_k and top_p, and whose they are, in the order of ids: that
    of the likeliest would turn over with the last bit of a score."""
    width = scores.shape[1]
    best, ids = torch.topk(scores, some)
    place = torch.arange(some, device=scores.device)
    best = best.masked_fill(place >= limit[:, None], float("-inf"))
    # Of those within top_k; without one, of all.
    mass = torch.where(limit < width, best.logsumexp(-1), scores.logsumexp(-1))
    weights = (best - mass[:, None]).exp()
    sums = weights.cumsum(-1)
    if some < width and bool(((limit == width) & (sums[:, -1] < top_p)).any()):
        return _truncated(scores, limit, top_p, width)
    outside = (sums - weights >= top_p[:, None]) & (top_p[:, None] < 1)
    outside[:, 0] = False
    weights = weights.masked_fill(outside, 0.0)
    ids, order = ids.sort(-1)
    return weights.gather(1, order), ids


def _likely(weights: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """Those at least ``min_p`` times as likely as the likeliest."""
    least = weights.amax(-1) * min_p.float()
    return weights.masked_fill(weights < least[:, None], 0.0)


def _find(weights: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """The first place where the cumulated weights pass ``number`` of their sum; 0 <= number < 1."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1]
    sought = torch.minimum(number * total, total * (1 - 1e-12))
    places = torch.searchsorted(sums, sought[:, None], right=True)[:, 0]
    return places.clamp(max=weights.shape[1] - 1)


def _report(
    raw: torch.Tensor, scores: torch.Tensor, tokens: torch.Tensor, sequences: Items[Running]
) -> NDArray[np.float64]:
    """Sequences x (token, whether its numbers are valid, logprob, k ids, k logprobs): doubles hold
    ids exactly, and all goes over in one piece."""
    wanted = [row for row, one in enumerate(sequences) if one.sampling.logprobs is not None]
    k = max((sequences[row].sampling.logprobs or 0 for row in wanted), default=0)
    k = min(k, raw.shape[1])
    report = torch.zeros(len(sequences), 3 + 2 * k, dtype=torch.float64, device=raw.device)
    report[:, 0] = tokens
    report[:, 1] = raw.amax(-1).isfinite()
    if scores is not raw:
        report[:, 1] *= scores.amax(-1).isfinite()
    if wanted:
        place = _on(wanted, raw.device)
        logprobs = torch.log_softmax(raw[place], -1)
        parts = [logprobs.gather(1, tokens[place][:, None]).double()]
        if k:
            values, ids = torch.topk(logprobs, k)
            parts += [ids.double(), values.double()]
        report[place, 2:] = torch.cat(parts, 1).clamp(min=_IMPOSSIBLE)
    return report.cpu().numpy()


def _read(report: NDArray[np.float64], sequences: Items[Running]) -> list[Choice]:
    k = (report.shape[1] - 3) // 2
    choices = []
    for line, one in zip(report, sequences, strict=True):
        asked = min(one.sampling.logprobs or 0, k)
        ids, values = line[3 : 3 + asked].tolist(), line[3 + k : 3 + k + asked].tolist()
        top = [(int(token), value) for token, value in zip(ids, values, strict=True)]
        choices.append(Choice(int(line[0]), float(line[2]), top, bool(line[1])))
    return choices


def _on(values: Items[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)
