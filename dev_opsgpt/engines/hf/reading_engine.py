"""What encoders and cross-encoders have in common as engines: they read in batches, and write
nothing."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Generic, TypeVar

from dev_opsgpt.engines.hf.description import one_line
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.progress import Progress, logged
from dev_opsgpt.engines.hf.reader import Reader, Row, length_of
from dev_opsgpt.engines.hf.row_batcher import RowBatcher
from dev_opsgpt.protocol.errors import Unavailable, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.worker.engine import Abilities, Delta, EngineError

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")
Made = TypeVar("Made")


class ReadingEngine(ABC, Generic[Loaded, Result]):
    """An engine whose model reads rows, each of which gives a ``Result``.

    Two threads serve it: one has the model, the other makes rows of texts and vectors of results,
    one request at a time, because a tokenizer is not made for more. ``default_params`` are for
    models that write; nothing of them applies here. ``progress`` is told how the loading goes on.
    """

    only: ClassVar[str]
    """What a client is told who asks for something else."""

    def __init__(
        self, options: HfOptions, *, default_params: Mapping[str, Any] | None = None
    ) -> None:
        self._options = options
        self.progress: Progress = logged(str(options.path))
        self._model: Loaded | None = None
        self._batcher: RowBatcher[Row, Result] | None = None
        self._aside: ThreadPoolExecutor | None = None

    @abstractmethod
    def _load(self, options: HfOptions, progress: Progress) -> Loaded:
        """Loads the model, in the thread that will run it. Raises ``EngineError``."""

    @abstractmethod
    def _reader(self, loaded: Loaded) -> Reader:
        """The part of it that is a ``Reader``."""

    @abstractmethod
    def _read(self, loaded: Loaded, rows: list[Row]) -> list[Result]:
        """One pass of the model."""

    @property
    def context_length(self) -> int:
        """The most tokens of one input; 0 before the model is loaded."""
        return self._reader(self._model).longest if self._model is not None else 0

    @property
    def abilities(self) -> Abilities:
        """Nothing that has to do with writing."""
        return Abilities(
            context_length=self.context_length or None,
            tools=False,
            vision=False,
            json_output=False,
        )

    async def start(self) -> None:
        """Loads the model and lets it read once. Raises ``EngineError`` with one line."""
        if self._model is not None:
            raise EngineError("The model is loaded already.")
        thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(thread, self._tried)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="tokenizing")
        self._batcher = RowBatcher(
            lambda rows: self._read(loaded, rows),
            length_of,
            budget=self._reader(loaded).budget,
            thread=thread,
        )
        self._batcher.start()
        self._model = loaded

    async def stop(self) -> None:
        """Ends every request and frees the model, when the batch that it reads is over."""
        batcher, self._batcher = self._batcher, None
        aside, self._aside = self._aside, None
        self._model = None
        if batcher is not None:
            await batcher.stop()
        if aside is not None:
            await asyncio.to_thread(aside.shutdown)

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Refused."""
        raise self._refusal()
        yield Delta()

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Refused."""
        raise self._refusal()
        yield Delta()

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """Refused, unless the model can."""
        raise self._refusal()

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """Tokens of a text, special ones included, or of ids. Messages are refused."""
        if isinstance(prompt, ChatRequest):
            raise self._refusal()
        if isinstance(prompt, list):
            return len(prompt)
        tokenizer = self._reader(self._ready).tokenizer
        return await self._beside(lambda: len(tokenizer(prompt, verbose=False)["input_ids"]))

    @property
    def _ready(self) -> Loaded:
        if self._model is None:
            raise Unavailable("The model is not loaded.")
        return self._model

    async def _results(self, rows: list[Row]) -> list[Result]:
        """What the model makes of the rows. Raises ``ApiError``."""
        if self._batcher is None:
            raise Unavailable("The model is not loaded.")
        return await self._batcher.submit(rows)

    async def _beside(self, work: Callable[[], Made]) -> Made:
        """Does work in the thread beside the model's."""
        if self._aside is None:
            raise Unavailable("The model is not loaded.")
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    def _refusal(self) -> Unsupported:
        return Unsupported(self.only, param="model")

    def _tried(self) -> Loaded:
        """The loaded model, which has read one row: not every model takes what it is given."""
        if self._options.cache_tokens is not None:
            raise EngineError("cache_tokens is set, and this model keeps nothing of what it reads.")
        loaded = self._load(self._options, self.progress)
        reader = self._reader(loaded)
        try:
            self._read(loaded, [Row([0])])
        except EngineError:
            raise
        except Exception as error:
            # Whatever a model's code does not like.
            raise EngineError(f"{reader.folder} cannot read a text: {one_line(error)}") from None
        return loaded
