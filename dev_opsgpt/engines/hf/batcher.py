"""The step batcher: one thread runs the model, sequences join and leave between its steps.

A step is three verbs: the scheduler plans, the runner computes, the sampler chooses. What the event
loop and the thread tell each other goes through an inbox and one call a step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

import torch

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool
from dev_opsgpt.engines.hf.choosing import choose_runner
from dev_opsgpt.engines.hf.memory import tokens_that_fit
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Scheduler
from dev_opsgpt.engines.hf.sequence import Constraint, LoadedModel, Sampling, Token
from dev_opsgpt.engines.hf.steps import compute, go_on
from dev_opsgpt.protocol.errors import (
    ApiError,
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    Unavailable,
)

log = logging.getLogger(__name__)

_MOMENT = 0.001
"""Seconds."""

Event = tuple[Running, Token | ApiError]


class StepBatcher:
    """A ``Batcher`` for any causal language model.

    At most ``parallel`` sequences run at once, the others wait. ``prefill_tokens`` is how many
    tokens of prompts a step computes beside the tokens that are generated. ``cache_tokens`` is how
    many tokens' keys and values are kept in all, those of prompts seen before included; by default
    as many as the free memory allows, up to twice what ``parallel`` whole contexts take.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        parallel: int,
        prefill_tokens: int = 512,
        cache_tokens: int | None = None,
    ) -> None:
        self._loaded = loaded
        self._parallel = parallel
        self._prefill_tokens = prefill_tokens
        self._cache_tokens = cache_tokens
        self._inbox: deque[Running] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._streams: dict[Running, asyncio.Queue[Token | ApiError]] = {}
        self._limit = loaded.context_length

    async def start(self) -> None:
        """Returns when sequences are taken. The thread first tries out how the model can be run."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        self._inbox.clear()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="batcher")
        self._thread.start()
        try:
            await ready
        except BaseException:
            self._stopping = True
            self._thread = None
            raise

    async def stop(self) -> None:
        """Ends every sequence with ``Unavailable``, and the thread after its step."""
        if self._thread is None:
            return
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        self._deliver_to_all(Unavailable("The model is being unloaded."))

    @property
    def running(self) -> int:
        """How many sequences are in the batch or wait for it."""
        return len(self._streams)

    async def generate(
        self, prompt: list[int], sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Token, None]:
        """The tokens that continue the prompt, see ``Batcher``."""
        self._check(prompt, sampling)
        if sampling.max_tokens < 1 or (constraint is not None and constraint.done):
            yield Token(None, finish="length" if sampling.max_tokens < 1 else "stop")
            return
        sequence = Running(list(prompt), sampling, constraint)
        stream = self._streams[sequence] = asyncio.Queue()
        self._inbox.append(sequence)
        self._wake.set()
        try:
            while True:
                item = await stream.get()
                if isinstance(item, ApiError):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            sequence.cancelled = True
            del self._streams[sequence]
            self._wake.set()

    def _check(self, prompt: list[int], sampling: Sampling) -> None:
        if self._thread is None or self._stopping:
            raise Unavailable("The model is not running.")
        if not prompt:
            raise InvalidRequest("The prompt has no tokens.", param="prompt")
        if len(prompt) >= self._limit:
            raise ContextLengthExceeded(
                f"The prompt has {len(prompt)} tokens; the model's context has {self._limit},"
                " prompt and answer together."
            )
        if not 0 <= min(prompt) <= max(prompt) < self._loaded.vocabulary:
            raise InvalidRequest("The prompt has a token that the model does not.", param="prompt")
        if any(not 0 <= token < self._loaded.vocabulary for token in sampling.logit_bias):
            raise InvalidRequest(
                "'logit_bias' names a token that the model does not have.", param="logit_bias"
            )

    def _deliver(self, events: list[Event]) -> None:
        for sequence, item in events:
            stream = self._streams.get(sequence)
            if stream is not None:
                stream.put_nowait(item)

    def _deliver_to_all(self, fault: ApiError) -> None:
        for stream in self._streams.values():
            stream.put_nowait(fault)

    # What follows runs in the thread.

    def _run(self, ready: "asyncio.Future[None]") -> None:
        with torch.inference_mode():
            try:
                self._prepare()
            except Exception as error:
                self._tell(_fail, ready, error)
                return
            self._tell(_succeed, ready)
            while not self._stopping:
                try:
                    self._turn()
                except Exception as error:
                    self._begin_anew(error)
            self._runner.leave()

    def _turn(self) -> None:
        """A step, or a wait for somebody to compute."""
        self._take_in()
        if not self._scheduler.empty:
            self._tell(self._deliver, self._step())
            return
        self._wake.wait()
        self._wake.clear()
        # Who comes in the same moment shares the first step.
        time.sleep(_MOMENT)

    def _begin_anew(self, error: Exception) -> None:
        """After a fault of the batcher itself: everybody's end rather than their waiting. Who has
        just come ends too, as nobody knows where the fault has left whom."""
        log.error("The batcher failed", exc_info=error)
        self._open()
        fault = InternalError(f"The batcher failed ({type(error).__name__}).")
        self._tell(self._deliver_to_all, fault)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Has the event loop call; a loop that is closed has nobody who listens."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            self._stopping = True

    def _prepare(self) -> None:
        loaded = self._loaded
        self._runner = choose_runner(loaded)
        tokens = self._cache_tokens or tokens_that_fit(
            loaded.device,
            self._runner.bytes_per_token,
            most=2 * self._parallel * loaded.context_length,
        )
        self._blocks = max(2, tokens // BLOCK)
        self._limit = min(loaded.context_length, self._blocks * BLOCK)
        self._open()
        log.info("%s: room for %d tokens", type(self._runner).__name__, self._blocks * BLOCK)

    def _open(self) -> None:
        """Empties the store, and begins with nobody."""
        runner = self._runner
        runner.resize(self._blocks)
        self._scheduler = Scheduler(
            BlockPool(self._blocks, reuse=not runner.states),
            parallel=1 if runner.one_at_a_time else self._parallel,
            prefill_tokens=self._prefill_tokens,
            states=runner.states,
            whole=runner.whole_prompts,
        )

    def _take_in(self) -> None:
        while self._inbox:
            self._scheduler.add(self._inbox.popleft())
        for sequence in self._scheduler.everyone():
            if sequence.cancelled:
                self._end(sequence)

    def _end(self, sequence: Running) -> None:
        if not self._scheduler.end(sequence):
            self._runner.forget(sequence)

    def _step(self) -> list[Event]:
        plan = self._scheduler.plan()
        for sequence in plan.preempted + plan.dropped:
            self._runner.forget(sequence)
        for old, new in plan.heirs:
            self._runner.hand_on(old, new)
        outcome = compute(self._runner, plan.works)
        for work in outcome.computed:
            self._scheduler.done(work)
        events: list[Event] = [*outcome.failed]
        for sequence, choice in outcome.chosen:
            events += [(sequence, item) for item in go_on(sequence, choice, self._limit)]
        for sequence, item in events:
            if isinstance(item, ApiError):
                # What it left may be no numbers, which nobody is to take over or to compute with.
                self._runner.clear(self._scheduler.discard(sequence))
                self._runner.forget(sequence)
            elif item.finish is not None:
                self._end(sequence)
        return events


def _succeed(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: "asyncio.Future[None]", error: Exception) -> None:
    if not ready.done():
        ready.set_exception(error)
