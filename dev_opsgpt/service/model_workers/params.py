"""What a provider's methods are called with: the request, and the entry that configures it.

The names and defaults are those of the seed's family of classes. A field that the client's
request does not give comes from the model's entry in ``ONLINE_LLM_MODEL``; the entry's other keys
are there as attributes too.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from dev_opsgpt.config.secrets import is_secret_name, masked

Entry = Mapping[str, Any]


class ApiConfigParams(BaseModel):
    """The configuration of a provider. Its secrets are readable as attributes and hidden when
    it is shown."""

    model_config = ConfigDict(
        extra="allow",
        hide_input_in_errors=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,
    )

    api_base_url: str | None = None
    api_proxy: str | None = None
    api_key: str | None = None
    secret_key: str | None = None
    group_id: str | None = None
    is_pro: bool = False
    APPID: str | None = None
    APISecret: str | None = None
    is_v2: bool = False
    worker_name: str | None = None

    _entries: Mapping[str, Entry] = PrivateAttr(default_factory=dict)
    _asked: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def bound(
        cls, entries: Mapping[str, Entry], worker_name: str, asked: Mapping[str, Any]
    ) -> Self:
        """Parameters of one call: what was ``asked``, completed from the entry of
        ``worker_name``. Raises ``pydantic.ValidationError``."""
        entry = entries.get(worker_name, {})
        params = cls.model_validate({**entry, **asked, "worker_name": worker_name})
        params._entries = entries
        params._asked = frozenset(asked)
        return params

    def load_config(self, worker_name: str) -> Self:
        """Fills in the entry of ``worker_name`` and returns itself.

        What the client asked for is kept. The engine has filled in the worker's own entry
        already, so calling this is never needed; parameters made by hand, as in a test, know no
        configuration and keep what they were given.
        """
        self.worker_name = worker_name
        for key, value in self._entries.get(worker_name, {}).items():
            if key not in self._asked:
                setattr(self, key, value)
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Shows everything but secrets."""
        for name, value in super().__repr_args__():
            secret = is_secret_name(name) and value
            yield name, "***" if secret else masked(value) if isinstance(value, dict) else value


class ApiModelParams(ApiConfigParams):
    """The configuration, and how to generate. ``version`` is the provider's name of the model."""

    version: str | None = None
    version_url: str | None = None
    api_version: str | None = None
    deployment_name: str | None = None
    resource_name: str | None = None
    temperature: float = 0.7
    max_tokens: int | None = None
    top_p: float | None = 1.0


class ApiChatParams(ApiModelParams):
    """One chat. ``messages`` are the client's, every role kept; what else the client asked for
    (``stop``, ``seed``, ``presence_penalty`` …) is there as attributes."""

    messages: list[dict[str, Any]]
    system_message: str | None = None
    role_meta: dict[str, Any] = Field(default_factory=dict)


class ApiCompletionParams(ApiModelParams):
    """One prompt to continue."""

    prompt: str


class ApiEmbeddingsParams(ApiConfigParams):
    """Texts to embed. ``to_query`` says that they are questions, for models that tell questions
    from documents."""

    texts: list[str]
    embed_model: str | None = None
    to_query: bool = False
