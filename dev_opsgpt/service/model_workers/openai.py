"""Providers that speak OpenAI's dialect: OpenAI itself, and the pattern for all the others.

Most vendors answer this dialect today. Their class is a few lines, as ``ExampleWorker`` shows:
requests are passed on and answers come back as they are, streams, tools, ``response_format``,
``logprobs`` and all. A vendor with a protocol of its own gets a ``do_chat`` instead; see
docs/adding-a-provider.md.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from dev_opsgpt import __version__
from dev_opsgpt.service.model_workers.base import ApiChatParams, ApiModelWorker
from dev_opsgpt.service.model_workers.masking import Mask, secrets_in
from dev_opsgpt.service.model_workers.outcomes import answered
from dev_opsgpt.service.model_workers.upstream import (
    Answer,
    DirectUpstream,
    ProxiedUpstream,
    Upstream,
)
from dev_opsgpt.transport.client import Origin
from dev_opsgpt.worker.openai_stream import StreamReader

OPENAI = "https://api.openai.com/v1"
# What do_chat sends of its parameters.
_SENT = ("temperature", "top_p", "max_tokens", "stop", "seed")
_LARGEST_ERROR = 1 << 20


class OpenAIWorker(ApiModelWorker):
    """A model behind an API in OpenAI's dialect.

    ``version`` (or ``model_name``) is the provider's name of the model, ``api_base_url`` what
    stands before ``/chat/completions``, ``openai_proxy`` the URL of an HTTP or SOCKS proxy. With
    an empty ``api_key`` the client's own key is sent, where the gateway hands it on.
    """

    sends_stream_options = True
    """Whether the provider takes ``stream_options``; without, FastChat's streams have no usage."""

    def __init__(
        self,
        *,
        model_names: Sequence[str] = ("gpt-3.5-turbo",),
        version: str | None = None,
        model_name: str | None = None,
        api_base_url: str | None = None,
        api_key: str | None = None,
        openai_proxy: str | None = None,
        controller_addr: str | None = None,
        worker_addr: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("context_len", 16384)
        kwargs.update(
            model_names=model_names, controller_addr=controller_addr, worker_addr=worker_addr
        )
        super().__init__(**kwargs)
        self.version = version or model_name or self.model_names[0]
        self.api_base_url = (api_base_url or OPENAI).rstrip("/")
        self.api_key = (api_key or "").strip()
        self.openai_proxy = openai_proxy or None
        self._upstream: Upstream | None = None

    def url(self, path: str) -> str:
        """The address of ``/chat/completions``, ``/completions``, ``/embeddings`` or
        ``/rerank``."""
        return f"{self.api_base_url}{path}"

    def headers(self, client_key: str | None = None) -> dict[str, str]:
        """The headers of a request. A provider with another kind of credential overrides this."""
        found = {
            "content-type": "application/json",
            # A compressed stream could not be cut into its events.
            "accept-encoding": "identity",
            "user-agent": f"opsgpt/{__version__}",
        }
        key = self.api_key or client_key
        return found | {"authorization": f"Bearer {key}"} if key else found

    async def open(self) -> None:
        """Checks the configuration. Raises ``ValueError``."""
        try:
            Origin(self.api_base_url).head("POST", "/", self.headers())
        except UnicodeEncodeError:
            raise ValueError("api_key holds a character that no HTTP header can carry") from None
        except ValueError:
            problem = "api_base_url must be an http or https URL, and api_key one line"
            raise ValueError(problem) from None
        try:
            self._connected()
        except ImportError:
            hint = "try: pip install 'httpx[socks]'"
            raise ValueError(f"openai_proxy: a SOCKS proxy needs a package, {hint}") from None
        except Exception:
            hint = "such as http://10.0.0.1:3128"
            raise ValueError(f"openai_proxy must be the URL of a proxy, {hint}") from None

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, *, client_key: str | None = None
    ) -> AsyncIterator[Answer]:
        """The provider's answer to a JSON body. Raises ``ApiError`` where none comes."""
        headers = self.headers(client_key)
        async with self._connected().post(self.url(path), headers, body) as answer:
            yield answer

    def _connected(self) -> Upstream:
        if self._upstream is None:
            self._upstream = (
                ProxiedUpstream(self.openai_proxy, self.timeout)
                if self.openai_proxy
                else DirectUpstream(self.timeout)
            )
        return self._upstream

    async def do_chat(self, params: ApiChatParams) -> AsyncGenerator[dict[str, Any], None]:
        """The chat as text, for classes that override this and build on it.

        The engine does not come here: it relays.
        """
        given = params.model_dump(include=set(_SENT), exclude_none=True)
        fields = given | {"model": self.version, "messages": params.messages, "stream": True}
        text = ""
        reader = StreamReader()
        async with self.post("/chat/completions", msgspec.json.encode(fields)) as answer:
            if answer.status != 200:
                mask = Mask(secrets_in(vars(self)))
                raise answered(answer.status, await answer.read(_LARGEST_ERROR), mask)
            async for piece in answer.body:
                for delta in reader.feed(piece):
                    text += delta.content
                    yield {"error_code": 0, "text": text}
        last = reader.end()
        usage = msgspec.to_builtins(last.usage) if last.usage else None
        yield {"error_code": 0, "text": text, "finish_reason": last.finish_reason, "usage": usage}

    async def close(self) -> None:
        """Ends the connections."""
        if self._upstream is not None:
            await self._upstream.close()


class ExampleWorker(OpenAIWorker):
    """The pattern to copy for a provider that speaks OpenAI's dialect.

    An entry of ``ONLINE_LLM_MODEL`` starts it::

        "example": {
            "version": "gpt-3.5",  # the provider's name of the model
            "api_base_url": "https://api.openai.com/v1",
            "api_key": "",
            "provider": "ExampleWorker",
        },
    """

    # Where the provider has embeddings: the model that makes them. The entry's "embed_model" goes
    # before it.
    DEFAULT_EMBED_MODEL = None

    # Each argument that is named here gets the value that the entry has under the same name; name
    # the keys your provider needs. The rest of the entry is self.config, once the object is made.
    def __init__(
        self,
        *,
        controller_addr: str | None = None,
        worker_addr: str | None = None,
        model_names: Sequence[str] = ("gpt-3.5-turbo",),
        version: str = "gpt-3.5",
        api_base_url: str = OPENAI,
        api_key: str = "",
        openai_proxy: str = "",
        **kwargs: Any,
    ) -> None:
        kwargs.update(
            model_names=model_names, controller_addr=controller_addr, worker_addr=worker_addr
        )
        # The model's context in tokens; clients of FastChat's routes ask for it.
        kwargs.setdefault("context_len", 16384)
        super().__init__(
            version=version,
            api_base_url=api_base_url,
            api_key=api_key,
            openai_proxy=openai_proxy,
            **kwargs,
        )

    # Override url(path) where the provider's paths differ, headers(client_key) where it wants
    # another credential than a Bearer key, and do_chat(params) where it speaks a dialect of its
    # own: then do_chat is called instead of relaying.
