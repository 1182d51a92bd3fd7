"""``ApiModelWorker``: what a provider's class inherits from, and all that it needs to import.

The contract is that of the seed's family of classes; docs/adding-a-provider.md tells it with an
example. A class says how to ask one online API; serving, queueing, streaming, stopping and errors
are the engine's affair.
"""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.service.model_workers.params import (
    ApiChatParams,
    ApiCompletionParams,
    ApiConfigParams,
    ApiEmbeddingsParams,
    ApiModelParams,
    Entry,
)
from dev_opsgpt.service.model_workers.tokens import estimate

__all__ = [
    "ApiChatParams",
    "ApiCompletionParams",
    "ApiConfigParams",
    "ApiEmbeddingsParams",
    "ApiModelParams",
    "ApiModelWorker",
]


class ApiModelWorker:
    """A model behind an online API.

    ``model_names`` are the names that clients use; ``context_len`` is the model's context in
    tokens. The addresses and ``no_register`` are the worker's, for a class that wants to know
    them: nothing here registers or connects. Further keyword arguments are kept in ``options``.
    """

    DEFAULT_EMBED_MODEL: ClassVar[str | None] = None
    """The model that ``do_embeddings`` uses where the configuration names none."""
    supports: ClassVar[frozenset[str]] = frozenset()
    """What ``do_chat`` honours beyond text and sampling, of ``tools``, ``response_format``,
    ``logit_bias``, ``content_parts`` (images and the like) and, for ``do_embeddings``,
    ``dimensions``. A request for what is not named here is refused, never half answered."""

    def __init__(
        self,
        model_names: Sequence[str],
        controller_addr: str | None = None,
        worker_addr: str | None = None,
        context_len: int = 2048,
        no_register: bool = False,
        **kwargs: Any,
    ) -> None:
        self.model_names = list(model_names)
        self.controller_addr = controller_addr
        self.worker_addr = worker_addr
        self.context_len = context_len
        self.no_register = no_register
        self.options = kwargs
        self.version: str | None = None
        self.config: Entry = {}
        """The model's entry in ``ONLINE_LLM_MODEL``; set once the object is made."""
        self.timeout = 600.0
        """Seconds that the provider may be silent."""

    @cached_property
    def conv(self) -> Conversation:
        """The conversation template, for FastChat's sake."""
        return self.make_conv_template()

    def make_conv_template(self) -> Conversation:
        """The template that ``conv`` holds. Messages reach ``do_chat`` without passing through
        it."""
        return Conversation(name=self.model_names[0], roles=("user", "assistant"))

    def validate_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages as this provider wants them. Called before each ``do_chat``; a class whose
        provider has other roles or forms overrides it."""
        return messages

    def do_chat(self, params: ApiChatParams) -> Any:
        """Answers ``params.messages``.

        Gives ``{"error_code": 0, "text": the text so far}``, returned once or yielded as it
        grows, by a function, a generator, a coroutine function or an asynchronous generator. An
        ``error_code`` other than 0 ends the answer with ``text`` as the error's message. Optional
        keys: ``finish_reason``, ``usage`` (OpenAI's form), ``reasoning_content`` (cumulative like
        ``text``), ``tool_calls`` (OpenAI's form, complete).
        """
        return {"error_code": 500, "text": f"{self.model_names[0]} has no chat."}

    def do_completion(self, params: ApiCompletionParams) -> Any:
        """Continues ``params.prompt``; gives what ``do_chat`` gives. A class without it answers
        ``/v1/completions`` with a clear refusal."""
        return {"error_code": 500, "text": f"{self.model_names[0]} has no completions."}

    def do_embeddings(self, params: ApiEmbeddingsParams) -> Any:
        """Embeds ``params.texts``: ``{"code": 200, "data": [[float, ...], ...]}``, one vector a
        text in their order, or ``{"code": another number, "msg": what went wrong}``."""
        return {"code": 500, "msg": f"{self.model_names[0]} has no embeddings."}

    def can_embedding(self) -> bool:
        """Whether ``do_embeddings`` may be called."""
        return bool(self.embed_model)

    @property
    def embed_model(self) -> str | None:
        """The model for embeddings: the entry's ``embed_model``, else the class's own."""
        return self.config.get("embed_model") or self.DEFAULT_EMBED_MODEL

    def get_embeddings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``do_embeddings`` in FastChat's form: ``{"input": [text, ...]}`` gives
        ``{"embedding", "token_num"}`` or ``{"text", "error_code"}``. Blocks until it is done, so
        it is not for use inside an event loop."""
        texts = list(params["input"])
        name = self.model_names[0]
        asked = {"texts": texts, "embed_model": self.embed_model}
        result = self.do_embeddings(ApiEmbeddingsParams.bound({name: self.config}, name, asked))
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if result.get("code") != 200:
            return {"text": result.get("msg", ""), "error_code": result.get("code", 500)}
        return {"embedding": result["data"], "token_num": sum(map(estimate, texts))}

    async def open(self) -> None:
        """Called when the worker starts. Raises ``ValueError`` with one line for a person where
        the configuration is wrong."""

    async def close(self) -> None:
        """Called when the worker stops; a class that keeps connections closes them here."""
