"""A runner on trial: a few tokens in pieces beside each other, against the model's own forward."""

import random

import torch

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool
from dev_opsgpt.engines.hf.runner import Runner
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Scheduler
from dev_opsgpt.engines.hf.sequence import LoadedModel, Sampling

_LENGTHS = 21, 9, 14
_GENERATED = 3
"""The last tokens of each prompt come one by one."""


class Trial:
    """What a model says of some prompts by itself, to compare runners with. Nothing in the model is
    replaced yet when it is made."""

    def __init__(self, loaded: LoadedModel) -> None:
        source = random.Random(0)  # noqa: S311
        self._prompts = [[source.randrange(loaded.vocabulary) for _ in range(n)] for n in _LENGTHS]
        self._expected = [_own_logits(loaded, prompt) for prompt in self._prompts]

    def distances(self, runner: Runner, prefill_tokens: int = BLOCK) -> list[float]:
        """How far what the runner says is from what is expected, relative, at each place that it
        was asked for. A prompt is given up to its last tokens, which then come as if generated."""
        pool = BlockPool(16, reuse=not runner.states)
        runner.resize(pool.count)
        scheduler = Scheduler(
            pool,
            parallel=len(_LENGTHS),
            prefill_tokens=prefill_tokens,
            states=runner.states,
            whole=runner.whole_prompts,
        )
        sequences = [Running(one[:-_GENERATED], Sampling(max_tokens=8)) for one in self._prompts]
        found = []
        scheduler.add(sequences[0])
        for turn in range(40):
            if turn == 1:
                for sequence in sequences[1:]:
                    scheduler.add(sequence)
            ends, logits = runner.run(works := scheduler.plan().works)
            for work in works:
                scheduler.done(work)
            for work, row in zip(ends, logits, strict=True):
                which, place = sequences.index(work.sequence), len(work.sequence.tokens)
                found.append(_distance(row.float(), self._expected[which][place - 1]))
                if place == len(self._prompts[which]):
                    scheduler.remove(work.sequence)
                    runner.forget(work.sequence)
                else:
                    work.sequence.append(self._prompts[which][place])
            if scheduler.empty:
                break
        return found


def _own_logits(loaded: LoadedModel, prompt: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt], device=loaded.device)
    output = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)
    logits: torch.Tensor = output.logits[0].float()
    return logits


def _distance(row: torch.Tensor, expected: torch.Tensor) -> float:
    return float((row - expected).norm() / expected.norm().clamp(min=1e-6))
