"""One step: the model, then the choice of tokens; and who fails when one of them does."""

import logging
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dev_opsgpt.engines.hf.runner import Runner
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.sampling import Choice, choose
from dev_opsgpt.engines.hf.scheduler import Work
from dev_opsgpt.engines.hf.sequence import Token
from dev_opsgpt.protocol.errors import InternalError, OutOfMemory

log = logging.getLogger(__name__)

Mask = NDArray[np.int32] | None


@dataclass
class Outcome:
    """What came of a step. A choice of None: the constraint allows nothing more."""

    computed: list[Work] = field(default_factory=list)
    chosen: list[tuple[Running, Choice | None]] = field(default_factory=list)
    failed: list[tuple[Running, InternalError]] = field(default_factory=list)


def compute(runner: Runner, works: Items[Work]) -> Outcome:
    """Computes the works at once. If that fails, each alone: only those at fault fail then."""
    try:
        return _attempt(runner, works)
    except Exception as error:
        log.exception("A step of %d sequences failed", len(works))
        memory = _is_memory(error)
        if len(works) == 1:
            kind = OutOfMemory if memory else InternalError
            what = "ran out of memory" if memory else f"failed ({type(error).__name__})"
            return Outcome(failed=[(works[0].sequence, kind(f"The model {what}."))])
    if memory and torch.cuda.is_available():
        torch.cuda.empty_cache()
    outcome = Outcome()
    for work in works:
        alone = compute(runner, [work])
        outcome.computed += alone.computed
        outcome.chosen += alone.chosen
        outcome.failed += alone.failed
    return outcome


def _attempt(runner: Runner, works: Items[Work]) -> Outcome:
    ends, logits = runner.run(works)
    outcome = Outcome(computed=list(works))
    rows, masks = [], []
    for row, work in enumerate(ends):
        sequence = work.sequence
        try:
            mask = None if sequence.constraint is None else sequence.constraint.mask()
        except Exception as error:
            outcome.failed.append((sequence, _fault_of_grammar(error)))
            continue
        if mask is not None and not mask.any():
            outcome.chosen.append((sequence, None))
            continue
        rows.append(row)
        masks.append(mask)
    if not rows:
        return outcome
    if len(rows) < len(ends):
        logits = logits[rows]
    sequences = [ends[row].sequence for row in rows]
    outcome.chosen += zip(sequences, choose(logits, sequences, masks), strict=True)
    return outcome


def go_on(sequence: Running, choice: Choice | None, limit: int) -> list[Token | InternalError]:
    """What the caller hears of a choice; the sequence has gone on by it. ``limit`` is the most
    tokens of prompt and answer together."""
    cached = sequence.cached or 0 if sequence.generated == 0 else 0
    if choice is None or (choice.valid and choice.token in sequence.sampling.end_tokens):
        return [Token(None, finish="stop", cached=cached)]
    if not choice.valid:
        return [InternalError("The model gave values that are no numbers.")]
    sequence.append(choice.token)
    token = Token(choice.token, cached=cached)
    if sequence.sampling.logprobs is not None:
        token.logprob, token.top = choice.logprob, choice.top
    if sequence.constraint is not None:
        try:
            sequence.constraint.accept(choice.token)
            done = sequence.constraint.done
        except Exception as error:
            return [_fault_of_grammar(error)]
        if done:
            return [token, Token(None, finish="stop")]
    if sequence.generated >= sequence.sampling.max_tokens or len(sequence.tokens) >= limit:
        token.finish = "length"
    return [token]


def _fault_of_grammar(error: Exception) -> InternalError:
    log.error("A constraint failed", exc_info=error)
    if isinstance(error, InternalError):
        return error
    return InternalError(f"The grammar failed ({type(error).__name__}).")


def _is_memory(error: Exception) -> bool:
    """torch has no class for a CPU that runs out of memory, only the words of its allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
