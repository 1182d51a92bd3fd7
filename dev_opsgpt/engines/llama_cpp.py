"""The llama.cpp engine: any GGUF model, on CPU or GPU, through xllamacpp.

The parts, in the order a request meets them: ``llama_cpp_params`` (what is asked of sampling),
``llama_cpp_chat`` (which way to put it), ``llama_cpp_server`` (llama.cpp itself), a reader of the
text, ``stop_strings``.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import msgspec

from dev_opsgpt.engines import llama_cpp_params as params
from dev_opsgpt.engines.asked import check_chat, check_completion, check_tokens, wanted_logprobs
from dev_opsgpt.engines.llama_cpp_chat import CHAT, ChatPlanner, Plan
from dev_opsgpt.engines.llama_cpp_embeddings import Embedder
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_loading import (
    LlamaOptions,
    context_of,
    embedding_params,
    generation_params,
    load,
)
from dev_opsgpt.engines.llama_cpp_server import COMPLETIONS, LlamaServer
from dev_opsgpt.engines.shown_text import NOTHING, limit_logprobs, rest, shown
from dev_opsgpt.engines.text_reader import PlainReader
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    Unavailable,
    Unsupported,
)
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import Abilities, Delta, EngineError, Usage
from dev_opsgpt.worker.progress import Tell, silent
from dev_opsgpt.worker.stop_strings import StopFilter

_EMBEDS = "makes embeddings only; use /v1/embeddings"


class _Loaded(msgspec.Struct):
    """What there is while a model is loaded."""

    model: Gguf
    server: LlamaServer
    planner: ChatPlanner
    embedder: Embedder
    context_length: int
    tools: bool | None


class _Call(NamedTuple):
    """How a request is put to llama.cpp, and what is to be done with what comes: the strings that
    end it, how many of the likeliest tokens to show, the field to blame for a fault."""

    plan: Plan
    stops: list[str]
    wanted: int | None
    param: str


class LlamaCppEngine:
    """A GGUF model that reads and writes text, behind the ``Engine`` interface.

    ``default_params`` are sampling fields for requests that do not set them. No more than
    ``options.parallel`` sequences run at the same time; others wait in the order they came.
    ``progress`` is told how the loading goes on.

    Made to be subclassed (``engine_class`` in ``llm_model_dict``): a subclass may change requests
    and deltas in ``chat`` and ``complete``, and how the model is loaded in ``loading_params``.
    """

    sees = False
    """Whether the model takes images."""

    def __init__(
        self, options: LlamaOptions, *, default_params: Mapping[str, Any] | None = None
    ) -> None:
        self._options = options
        self._given = default_params or {}
        self._defaults: dict[str, Any] = {}
        self._slots = asyncio.Semaphore(options.parallel)
        self._loaded: _Loaded | None = None
        self.progress: Tell = silent

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer share; 0 before the model is loaded."""
        return self._loaded.context_length if self._loaded is not None else 0

    @property
    def abilities(self) -> Abilities:
        """Images where the model ``sees``, JSON by a grammar, and tools where the chat template
        shows them to the model; nothing is known before the model is loaded."""
        if self._loaded is None:
            return Abilities()
        writes = self._loaded.model.generates
        return Abilities(
            context_length=self._loaded.context_length,
            tools=self._loaded.tools if writes else False,
            vision=self.sees,
            json_output=writes,
        )

    async def start(self) -> None:
        """Loads the model. Raises ``EngineError`` with one line: the file's path and what is
        wrong with it, the field of ``default_params``, the memory that is missing."""
        if self._loaded is not None:
            raise EngineError("The model is loaded already.")
        self._defaults = params.checked_defaults(self._given)
        loop = asyncio.get_running_loop()
        self.progress("reading the file's head", None)
        model = await loop.run_in_executor(None, Gguf, self._options.path)
        loading = self.loading_params(model)
        server = await load(model, loading, self._options.parallel, self.progress)
        try:
            props = await server.get("/props")
            planner = await self.planner(server, props)
        except BaseException:
            await server.stop()
            raise
        self._loaded = _Loaded(
            model,
            server,
            planner,
            Embedder(model, self._options, None if model.generates else server),
            props["default_generation_settings"]["n_ctx"]
            if model.generates
            else context_of(model, self._options.embedding_context),
            props.get("chat_template_caps", {}).get("supports_tools"),
        )

    def loading_params(self, model: Gguf) -> Any:
        """xllamacpp's parameters to load the model with. Raises ``EngineError``."""
        made = generation_params if model.generates else embedding_params
        return made(model, self._options)

    async def planner(self, server: LlamaServer, props: Mapping[str, Any]) -> ChatPlanner:
        """What puts chat requests to the loaded model; ``props`` is what llama.cpp says of it.
        Raises ``EngineError``."""
        return ChatPlanner(server, props.get("chat_template") or "")

    async def stop(self) -> None:
        """Ends every request and frees the model's memory."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.embedder.stop()
            await loaded.server.stop()

    def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Answers the messages: one sequence."""
        return self._generate(partial(self._chat_call, request, index))

    def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Continues the prompt: one sequence."""
        if request.max_tokens == 0:
            return self._nothing(request, prompt)
        return self._generate(partial(self._completion_call, request, prompt, index))

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each input, and the tokens they had together."""
        return await self._ready.embedder.embed(inputs, request)

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """A score for each document, and the tokens that were read, for a model that does this."""
        return await self._ready.embedder.rerank(request)

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """Tokens of a text, of ids, or of messages under the model's chat template."""
        if isinstance(prompt, list):
            return len(prompt)
        if not isinstance(prompt, str):
            return await self._ready.planner.count(prompt)
        return await self._ready.planner.count_text(prompt)

    async def running(self) -> int:
        """How many of llama.cpp's slots are at work."""
        slots = await self._ready.server.get("/slots")
        return sum(bool(slot["is_processing"]) for slot in slots)

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise Unavailable("The model is not loaded.")
        return self._loaded

    def _check_writes(self) -> None:
        """Raises ``Unsupported`` for a model that writes no text."""
        model = self._ready.model
        if not model.generates:
            does = "only reranks; use /v1/rerank" if model.reranks else _EMBEDS
            raise Unsupported(f"This model {does}.", param="model")

    def _sampling(self, request: ChatRequest | CompletionRequest, index: int) -> dict[str, Any]:
        vocabulary = self._ready.model.vocabulary_size
        return params.sampling(request, self._defaults, index=index, vocabulary=vocabulary)

    def _beginning(self) -> list[int]:
        """What stands before an empty prompt: without it llama.cpp generates nothing."""
        metadata = self._ready.model.metadata
        eos = metadata.get("tokenizer.ggml.eos_token_id", 0)
        return [int(metadata.get("tokenizer.ggml.bos_token_id", eos))]

    async def _chat_call(self, request: ChatRequest, index: int) -> _Call:
        check_chat(request)
        params.check_stop_tokens(request)
        self._check_writes()
        plan = await self._ready.planner.plan(request)
        plan.body |= self._sampling(request, index)
        wanted = wanted_logprobs(request)
        if wanted is not None and plan.route == CHAT:
            # llama.cpp shows the chosen token only together with at least one of the likeliest.
            plan.body |= {"logprobs": True, "top_logprobs": max(1, wanted)}
        elif wanted is not None:
            plan.body["n_probs"] = max(1, wanted)
        stops = [] if request.must_call else params.stops_of(request, self._defaults)
        return _Call(plan, stops, wanted, "messages")

    async def _completion_call(
        self, request: CompletionRequest, prompt: str | list[int], index: int
    ) -> _Call:
        self._check(request, prompt)
        plan = Plan(COMPLETIONS, {"prompt": prompt or self._beginning()}, PlainReader())
        plan.body |= self._sampling(request, index)
        wanted = wanted_logprobs(request)
        if wanted is not None:
            plan.body["n_probs"] = max(1, wanted)
        return _Call(plan, params.stops_of(request, self._defaults), wanted, "prompt")

    def _check(self, request: CompletionRequest, prompt: str | list[int]) -> None:
        check_completion(request)
        params.check_stop_tokens(request)
        self._check_writes()
        if not isinstance(prompt, str):
            check_tokens(prompt, self._ready.model.vocabulary_size, "prompt")

    async def _nothing(
        self, request: CompletionRequest, prompt: str | list[int]
    ) -> AsyncGenerator[Delta, None]:
        """The answer to ``max_tokens: 0``, where llama.cpp would generate one token."""
        self._check(request, prompt)
        tokens = await self.count_tokens(prompt)
        if tokens > self.context_length:
            raise ContextLengthExceeded(
                f"The input has {tokens} tokens; this model takes at most {self.context_length}.",
                param="prompt",
            )
        yield Delta(finish_reason="length", usage=Usage(tokens, 0))

    async def _generate(self, asked: Callable[[], Awaitable[_Call]]) -> AsyncGenerator[Delta, None]:
        plan, stops, wanted, param = await asked()
        reader, stopping = plan.reader, StopFilter(stops)
        # Text that is the answer as it comes needs nobody to look at it.
        plain = type(reader) is PlainReader and not stops
        reason = "stop"
        usage = None
        stream = self._ready.server.stream(plan.route, plan.body, counted=not plain)
        async with self._slots, aclosing(stream) as steps:
            try:
                async for delta in steps:
                    usage, delta.usage = delta.usage or usage, None
                    reason, delta.finish_reason = delta.finish_reason or reason, None
                    limit_logprobs(delta, wanted)
                    if plain:
                        if delta != NOTHING:
                            yield delta
                        continue
                    for visible in shown(reader.feed(delta), stopping):
                        yield visible
                    if stopping.stopped or reader.done:
                        break
            except InvalidRequest as error:
                error.param = error.param or param
                raise
        for visible in rest(reader, stopping):
            yield visible
        finish = "stop" if stopping.stopped else reader.finish(reason)
        yield Delta(finish_reason=finish, usage=usage)


__all__ = ["LlamaCppEngine", "LlamaOptions"]
