"""Ways to answer a wave of requests with one loaded model, all in this process."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from dev_opsgpt.engines.hf.batcher import StepBatcher
from dev_opsgpt.engines.hf.sequence import LoadedModel, Sampling

Prompts = Sequence[list[int]]


def tokenized(folder: Path, texts: Sequence[str]) -> Prompts:
    """The texts as a user's messages in the model's chat template, as a server does it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
            ),
            add_special_tokens=False,
        )["input_ids"]
        for text in texts
    ]


class Contender(Protocol):
    """Answers prompts at once, each with so many tokens, greedily."""

    def wave(self, prompts: Prompts, tokens: int) -> list[float]:
        """Returns when all are answered. Seconds to the first token of each."""
        ...

    def newcomer(self, prompts: Prompts, tokens: int) -> dict[str, float] | None:
        """The first token's time, and steps where they can be counted, of the last of the prompts,
        asked while the others generate; None if it has to wait for them anyway."""
        ...

    def close(self) -> None:
        """Ends its threads."""
        ...


def load(folder: Path, device: str) -> Any:
    """The model in its own type of numbers."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval().to(device)


class Batched:
    """Our step batcher."""

    def __init__(self, folder: Path, device: str) -> None:
        model = load(folder, device)
        self._loaded = LoadedModel(
            model=model,
            tokenizer=None,
            context_length=model.config.max_position_embeddings,
            end_tokens=frozenset(),
            vocabulary=model.config.vocab_size,
            device=torch.device(device),
        )
        self._loop = asyncio.new_event_loop()
        self._batcher = StepBatcher(self._loaded, parallel=64, cache_tokens=64 * 1024)
        self._loop.run_until_complete(self._batcher.start())
        self.steps = 0
        run = self._batcher._runner.run

        def counted(works: Any) -> Any:
            self.steps += 1
            return run(works)

        self._batcher._runner.run = counted  # type: ignore[method-assign]

    def wave(self, prompts: Prompts, tokens: int) -> list[float]:
        return self._loop.run_until_complete(self._wave(prompts, tokens))

    async def _wave(self, prompts: Prompts, tokens: int) -> list[float]:
        return list(await asyncio.gather(*(self._first(one, tokens) for one in prompts)))

    async def _first(
        self, prompt: list[int], tokens: int, begun: Callable[[], None] | None = None
    ) -> float:
        start, first = time.perf_counter(), 0.0
        async for _ in self._batcher.generate(prompt, Sampling(tokens, temperature=0.0)):
            if not first:
                first = time.perf_counter() - start
                if begun is not None:
                    begun()
        return first

    def newcomer(self, prompts: Prompts, tokens: int) -> dict[str, float] | None:
        return self._loop.run_until_complete(self._newcomer(prompts, tokens))

    async def _newcomer(self, prompts: Prompts, tokens: int) -> dict[str, float]:
        others = asyncio.Semaphore(0)
        tasks = [
            asyncio.ensure_future(self._first(one, tokens, others.release)) for one in prompts[:-1]
        ]
        for _ in tasks:
            await others.acquire()
        before, after = self.steps, 0

        def begun() -> None:
            nonlocal after
            after = self.steps

        seconds = await self._first(prompts[-1], 4, begun)
        await asyncio.gather(*tasks)
        return {"seconds": seconds, "steps": after - before}

    def close(self) -> None:
        self._loop.run_until_complete(self._batcher.stop())


class StaticBatch:
    """One padded batch through ``generate``: nobody gets in before it ends."""

    def __init__(self, folder: Path, device: str) -> None:
        self._model = load(folder, device)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def wave(self, prompts: Prompts, tokens: int) -> list[float]:
        given = self._tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt")
        given = given.to(self._model.device)
        clock = _FirstToken()
        with torch.inference_mode():
            self._model.generate(
                **given,
                max_new_tokens=tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()
        return [clock.first] * len(prompts)

    def newcomer(self, prompts: Prompts, tokens: int) -> dict[str, float] | None:
        return None

    def close(self) -> None:
        pass


class _FirstToken(StoppingCriteria):
    """Never stops; notes when it was first asked."""

    def __init__(self) -> None:
        self.start, self.first = time.perf_counter(), 0.0

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        self.first = self.first or time.perf_counter() - self.start
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class ThreadEach(StaticBatch):
    """A ``generate`` in a thread of its own for each request, as FastChat's worker has it."""

    def wave(self, prompts: Prompts, tokens: int) -> list[float]:
        return self._run([(prompt, tokens, None) for prompt in prompts])

    def newcomer(self, prompts: Prompts, tokens: int) -> dict[str, float] | None:
        gate = threading.Barrier(len(prompts))
        jobs: list[Any] = [(prompt, tokens, gate) for prompt in prompts[:-1]]
        found: list[float] = []

        def late() -> None:
            gate.wait()
            found.extend(self._run([(prompts[-1], 4, None)]))

        thread = threading.Thread(target=late)
        thread.start()
        self._run(jobs)
        thread.join()
        return {"seconds": found[0]}

    def _run(self, jobs: Sequence[tuple[list[int], int, threading.Barrier | None]]) -> list[float]:
        firsts = [0.0] * len(jobs)

        def client(place: int) -> None:
            prompt, tokens, gate = jobs[place]
            ids = torch.tensor([prompt], device=self._model.device)
            streamer = TextIteratorStreamer(self._tokenizer, skip_prompt=True)
            start = time.perf_counter()
            thread = threading.Thread(
                target=self._model.generate,
                kwargs={
                    "input_ids": ids,
                    "attention_mask": torch.ones_like(ids),
                    "streamer": streamer,
                    "max_new_tokens": tokens,
                    "do_sample": False,
                },
            )
            thread.start()
            for _ in streamer:
                if not firsts[place]:
                    firsts[place] = time.perf_counter() - start
                    if gate is not None:
                        gate.wait()
            thread.join()

        threads = [threading.Thread(target=client, args=(place,)) for place in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return firsts


CONTENDERS: dict[str, Callable[[Path, str], Contender]] = {
    "batcher": Batched,
    "static": StaticBatch,
    "threads": ThreadEach,
}
