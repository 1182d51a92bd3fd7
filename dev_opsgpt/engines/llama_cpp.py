"""The llama.cpp engine: any GGUF model, on CPU or GPU, through xllamacpp.

The parts, in the order a request meets them: ``llama_cpp_params`` (what is asked of sampling),
``llama_cpp_chat`` (which way to put it), ``llama_cpp_server`` (llama.cpp itself), a reader of the
text, ``stop_strings``.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from dev_opsgpt.engines import llama_cpp_params as params
from dev_opsgpt.engines.llama_cpp_chat import CHAT, COMPLETIONS, ChatPlanner, Plan
from dev_opsgpt.engines.llama_cpp_embeddings import Embedder
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_loading import (
    LlamaOptions,
    context_of,
    embedding_params,
    generation_params,
    load,
)
from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.engines.text_reader import PlainReader, rest, shown
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


class LlamaCppEngine:
    """A GGUF model behind the ``Engine`` interface.

    ``default_params`` are sampling fields for requests that do not set them. No more than
    ``options.parallel`` sequences run at the same time; others wait in the order they came.
    ``progress`` is told how the loading goes on.
    """

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
        """Text only, JSON by a grammar, and tools where the chat template shows them to the
        model; nothing is known before the model is loaded."""
        if self._loaded is None:
            return Abilities()
        writes = self._loaded.model.generates
        return Abilities(
            context_length=self._loaded.context_length,
            tools=self._loaded.tools if writes else False,
            vision=False,
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
        made = generation_params if model.generates else embedding_params
        loading = made(model, self._options)
        server = await load(model, loading, self._options.parallel, self.progress)
        try:
            props = await server.get("/props")
        except BaseException:
            await server.stop()
            raise
        self._loaded = _Loaded(
            model,
            server,
            ChatPlanner(server, props.get("chat_template") or ""),
            Embedder(model, self._options, None if model.generates else server),
            props["default_generation_settings"]["n_ctx"]
            if model.generates
            else context_of(model, self._options.embedding_context),
            props.get("chat_template_caps", {}).get("supports_tools"),
        )

    async def stop(self) -> None:
        """Ends every request and frees the model's memory."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.embedder.stop()
            await loaded.server.stop()

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Answers the messages: one sequence."""
        params.check_chat(request)
        self._check_writes()
        plan = await self._ready.planner.plan(request)
        plan.body |= self._sampling(request, index)
        wanted = params.wanted_logprobs(request)
        if wanted is not None and plan.route == CHAT:
            # llama.cpp shows the chosen token only together with at least one of the likeliest.
            plan.body |= {"logprobs": True, "top_logprobs": max(1, wanted)}
        elif wanted is not None:
            plan.body["logprobs"] = max(1, wanted)
        stops = [] if request.must_call else params.stops_of(request, self._defaults)
        async with aclosing(self._generate(plan, stops, wanted, "messages")) as steps:
            async for delta in steps:
                yield delta

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Continues the prompt: one sequence."""
        params.check_completion(request)
        self._check_writes()
        if not isinstance(prompt, str):
            params.check_tokens(prompt, self._ready.model.vocabulary_size, "prompt")
        if request.max_tokens == 0:
            yield await self._nothing(prompt)
            return
        plan = Plan(COMPLETIONS, {"prompt": prompt or self._beginning()}, PlainReader())
        plan.body |= self._sampling(request, index)
        wanted = params.wanted_logprobs(request)
        if wanted is not None:
            plan.body["logprobs"] = max(1, wanted)
        stops = params.stops_of(request, self._defaults)
        async with aclosing(self._generate(plan, stops, wanted, "prompt")) as steps:
            async for delta in steps:
                yield delta

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
        text = await self._ready.planner.prompt(prompt) if not isinstance(prompt, str) else prompt
        body = {"content": text, "add_special": True, "parse_special": True}
        return len((await self._ready.server.post("/tokenize", body))["tokens"])

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

    async def _nothing(self, prompt: str | list[int]) -> Delta:
        """The answer to ``max_tokens: 0``, where llama.cpp would generate one token."""
        tokens = await self.count_tokens(prompt)
        if tokens > self.context_length:
            raise ContextLengthExceeded(
                f"The input has {tokens} tokens; this model takes at most {self.context_length}.",
                param="prompt",
            )
        return Delta(finish_reason="length", usage=Usage(tokens, 0))

    async def _generate(
        self, plan: Plan, stops: list[str], wanted: int | None, param: str
    ) -> AsyncGenerator[Delta, None]:
        reader, stopping = plan.reader, StopFilter(stops)
        reason = "stop"
        usage = None
        server = self._ready.server
        async with self._slots, aclosing(server.stream(plan.route, plan.body)) as steps:
            try:
                async for delta in steps:
                    usage, delta.usage = delta.usage or usage, None
                    reason, delta.finish_reason = delta.finish_reason or reason, None
                    _limit_logprobs(delta, wanted)
                    for found in shown(reader.feed(delta), stopping):
                        yield found
                    if stopping.stopped or reader.done:
                        break
            except InvalidRequest as error:
                error.param = error.param or param
                raise
        for found in rest(reader, stopping):
            yield found
        finish = "stop" if stopping.stopped else reader.finish(reason)
        yield Delta(finish_reason=finish, usage=usage)


def _limit_logprobs(delta: Delta, wanted: int | None) -> None:
    """llama.cpp was asked for at least one of the likeliest tokens; shown is what was asked of
    us, and no entry for the token that ended the text."""
    if wanted is None:
        delta.logprobs = []
    for entry in delta.logprobs:
        entry.top = entry.top[:wanted]


__all__ = ["LlamaCppEngine", "LlamaOptions"]
