"""A provider as an engine: the worker's surfaces call it like any local model."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic import ValidationError

from dev_opsgpt.protocol.errors import Unsupported, UpstreamFailed
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.service.model_workers import asking
from dev_opsgpt.service.model_workers.base import ApiModelWorker
from dev_opsgpt.service.model_workers.calls import Calls
from dev_opsgpt.service.model_workers.masking import Mask, secrets_in
from dev_opsgpt.service.model_workers.outcomes import raised, reported
from dev_opsgpt.service.model_workers.params import (
    ApiChatParams,
    ApiCompletionParams,
    ApiConfigParams,
    ApiEmbeddingsParams,
    ApiModelParams,
)
from dev_opsgpt.service.model_workers.telling import ProviderAnswer
from dev_opsgpt.service.model_workers.tokens import estimate, estimate_messages
from dev_opsgpt.worker.engine import Abilities, Delta, EngineError

Params = TypeVar("Params", bound=ApiConfigParams)


class ProviderEngine:
    """Serves a model through the methods of its ``ApiModelWorker``.

    ``name`` is the model's key in ``ONLINE_LLM_MODEL``; ``limit`` bounds the threads that plain
    functions run in; ``default_params`` stand in for what a request leaves out.
    """

    def __init__(
        self,
        worker: ApiModelWorker,
        *,
        name: str | None = None,
        limit: int = 5,
        default_params: Mapping[str, Any] | None = None,
    ) -> None:
        self.worker = worker
        self.name = name or worker.model_names[0]
        self.defaults = dict(default_params or {})
        self.mask = Mask(secrets_in({**worker.config, "worker": vars(worker)}))
        self._calls = Calls(limit, worker.timeout)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer share, as the class says."""
        return self.worker.context_len

    @property
    def abilities(self) -> Abilities:
        """What the class says that it supports: what it does not name is refused."""
        supports, context = self.worker.supports, self.worker.context_len
        return Abilities(
            context_length=context if isinstance(context, int) and context > 0 else None,
            tools="tools" in supports,
            vision="content_parts" in supports,
            json_output="response_format" in supports,
        )

    async def start(self) -> None:
        """Checks the entry. Raises ``EngineError``."""
        try:
            self._params(ApiModelParams, {})
            await self.worker.open()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(step) for step in first["loc"])
            line = f"ONLINE_LLM_MODEL[{self.name!r}][{key!r}]: {first['msg']}"
            raise EngineError(line) from None
        except Exception as error:
            problem = self.mask(str(error)) or type(error).__name__
            raise EngineError(f"ONLINE_LLM_MODEL[{self.name!r}]: {problem}") from None

    async def stop(self) -> None:
        """Lets the class close what it keeps open. Calls that hang are left behind."""
        await self.worker.close()

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Answers through ``do_chat``."""
        asked = asking.chat(request, self.worker.supports, index)
        prompt_tokens = await self.count_tokens(request)
        try:
            asked["messages"] = self.worker.validate_messages(asked["messages"])
        except Exception as error:
            raise raised(error, self._where("validate_messages"), self.mask) from None
        params = self._params(ApiChatParams, asked)
        async with aclosing(
            self._answer("do_chat", params, request.stops, prompt_tokens)
        ) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Answers through ``do_completion``, where the class has one."""
        if type(self.worker).do_completion is ApiModelWorker.do_completion:
            raise Unsupported("This is a chat model; use /v1/chat/completions.", param="model")
        asked = asking.completion(request, prompt, self.worker.supports, index)
        params = self._params(ApiCompletionParams, asked)
        tokens = await self.count_tokens(prompt)
        async with aclosing(self._answer("do_completion", params, request.stops, tokens)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """Answers through ``do_embeddings``."""
        if not self.worker.can_embedding():
            raise Unsupported("This model makes no embeddings.", param="model")
        asked = asking.embeddings(request, self.worker.supports)
        asked["embed_model"] = self.worker.embed_model
        params = self._params(ApiEmbeddingsParams, asked)
        result: Any = None
        async with aclosing(self._given("do_embeddings", params)) as items:
            async for item in items:
                result = item
        return self._vectors(result, len(inputs)), sum(map(estimate, asked["texts"]))

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """The estimate of ``tokens.py``; a list of ids is counted."""
        if isinstance(prompt, ChatRequest):
            return estimate_messages(message.text() for message in prompt.messages)
        return estimate(prompt) if isinstance(prompt, str) else len(prompt)

    async def _answer(
        self, method: str, params: Any, stops: list[str], prompt_tokens: int
    ) -> AsyncGenerator[Delta, None]:
        answer = ProviderAnswer(self._where(method), self.mask, stops)
        async with aclosing(self._given(method, params)) as items:
            async for item in items:
                delta = answer.take(item)
                if delta != Delta():
                    yield delta
                if answer.stopped:
                    break
        yield answer.end(prompt_tokens)

    async def _given(self, method: str, params: Any) -> AsyncGenerator[Any, None]:
        """What a method gives; what it raises becomes an ``ApiError``."""
        try:
            async with aclosing(self._calls.items(getattr(self.worker, method), params)) as items:
                async for item in items:
                    yield item
        except Exception as error:
            raise raised(error, self._where(method), self.mask) from None

    def _params(self, kind: type[Params], asked: Mapping[str, Any]) -> Params:
        worker = self.worker
        entry = dict(worker.config)
        entry["version"] = entry.get("version") or entry.get("model_name") or worker.version
        entry["api_key"] = entry.get("api_key") or ""
        entry["api_proxy"] = entry.get("api_proxy") or entry.get("openai_proxy")
        entries = dict.fromkeys((self.name, *worker.model_names), entry)
        return kind.bound(entries, self.name, {**self.defaults, **asked})

    def _vectors(self, result: Any, wanted: int) -> list[list[float]]:
        where = self._where("do_embeddings")
        if not isinstance(result, dict) or "code" not in result:
            raise UpstreamFailed(f'{where} gave something else than {{"code", "data"}}.')
        if result["code"] != 200:
            raise reported(result, self.mask, "code")
        data = result.get("data")
        if not isinstance(data, list) or len(data) != wanted:
            raise UpstreamFailed(f"{where} did not give one vector for each of {wanted} texts.")
        try:
            return [[float(number) for number in vector] for vector in data]
        except (TypeError, ValueError):
            raise UpstreamFailed(f"{where} gave vectors that are no lists of numbers.") from None

    def _where(self, method: str) -> str:
        return f"{type(self.worker).__name__}.{method}"
