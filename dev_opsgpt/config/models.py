"""The entries that declare models, and the options every worker has.

The text under each field is its documentation: `reference.py` makes docs/configuration.md from it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from dev_opsgpt.config.secrets import unwrap_secrets, wrap_secrets

Port = Annotated[int, Field(ge=1, le=65535)]
Device = Literal["auto", "cpu", "cuda", "mps", "npu", "xpu"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the configuration: fixed once read, and a key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class LocalModel(Section):
    """One entry of `llm_model_dict`: a model that an engine of this machine runs."""

    local_model_path: str = Field(min_length=1)
    """The model: looked for under `llm_models/` first, then as a path (`~` is expanded), then taken
    as a Hugging Face hub name. A `.gguf` file, or a folder in Hugging Face format."""
    api_base_url: str | None = None
    """Where clients reach this model: the gateway's address. Information for clients; the server
    does not read it."""
    api_key: SecretStr = SecretStr("EMPTY")
    """The key clients send with `api_base_url`. Information for clients; the keys the gateway
    accepts are `FSCHAT_OPENAI_API["api_keys"]`."""
    engine: Literal["auto", "llama_cpp", "transformers"] = "auto"
    """What runs the model. `auto`: llama.cpp for a `.gguf` file, transformers for a folder or a hub
    name. The transformers engine is not there yet."""
    model_type: Literal["LLM", "VL"] = "LLM"
    """`LLM` for text; `VL` for a model that sees images too: a `.gguf` file with its projector."""
    mmproj_path: str | None = None
    """The vision projector of a `VL` model, a `.gguf` file; looked for as `local_model_path` is."""
    engine_class: str | None = None
    """A class of your own that runs the model, as `package.module:Class`: a subclass of
    `LlamaCppEngine`, for a `VL` model of `LlamaCppVisionEngine` (`dev_opsgpt/engines/`)."""
    default_params: dict[str, Any] = Field(default_factory=dict)
    """Generation parameters for requests that leave them out, such as `{"temperature": 0.7,
    "max_tokens": 2048}`."""


class WorkerOptions(Section):
    """What may be said of any worker, in `FSCHAT_MODEL_WORKERS` and in an `ONLINE_LLM_MODEL`
    entry."""

    host: str = "127.0.0.1"
    """Address the worker binds to. Left out: `DEFAULT_BIND_HOST`."""
    port: Port | None = None
    """Port the worker binds to. In `"default"`: the first of the numbers given to models without
    their own port."""
    advertise_host: str | None = None
    """Host name or address under which other machines reach the worker, where it is not `host`."""
    device: Device = "auto"
    """Where a local model runs. Left out: `LLM_DEVICE`."""
    gpus: str | None = None
    """Which GPUs to use, by number: `"0,1"`."""
    num_gpus: int = Field(default=1, ge=1)
    """How many GPUs to use."""
    max_gpu_memory: str | None = None
    """Most memory to take on each GPU: `"20GiB"`."""
    load_8bit: bool = False
    """Load the weights as 8-bit integers (transformers engine)."""
    cpu_offloading: bool | None = None
    """FastChat's key; it has no effect here."""
    gptq_ckpt: str | None = None
    """Checkpoint file with GPTQ weights, where it is not found by itself in the model's folder."""
    gptq_wbits: Literal[2, 3, 4, 8, 16] = 16
    """Bits of the GPTQ weights; 4 for int4, 16 means not GPTQ."""
    gptq_groupsize: int = Field(default=-1, ge=-1)
    """GPTQ group size; -1 is one group a column, or what the checkpoint says."""
    gptq_act_order: bool = False
    """The GPTQ checkpoint was made in activation order (`desc_act`)."""
    awq_ckpt: str | None = None
    """Checkpoint file with AWQ weights, where it is not found by itself in the model's folder."""
    awq_wbits: Literal[4, 16] = 16
    """Bits of the AWQ weights; 16 means not AWQ."""
    awq_groupsize: int = Field(default=-1, ge=-1)
    """AWQ group size; -1 is what the checkpoint says."""
    model_names: list[str] | None = Field(default=None, min_length=1)
    """Names under which clients find the model. Left out: the entry's own name."""
    conv_template: str | None = None
    """FastChat conversation template told to FastChat gateways. Left out: chosen by the model."""
    limit_worker_concurrency: int = Field(default=5, ge=1)
    """Requests a worker runs at the same time."""
    queue_size: int = Field(default=64, ge=0)
    """Requests that may wait beyond those running; the next one is answered 429."""
    queue_timeout: Seconds = 60.0
    """Seconds a request may wait before it is answered 429."""
    stream_interval: int = Field(default=2, ge=1)
    """Tokens between two frames on FastChat's streaming route. OpenAI streams send each token at
    once."""
    no_register: bool = False
    """Start the worker without telling the controller about it."""
    replicas: int = Field(default=1, ge=1)
    """How many workers serve this model, each with its own port."""
    n_ctx: int | None = Field(default=None, ge=1)
    """Context length in tokens. Left out: what the model was made for."""
    n_gpu_layers: int = Field(default=-1, ge=-1)
    """Layers that llama.cpp puts on the GPU; -1 means all, where there is a GPU."""
    n_threads: int | None = Field(default=None, ge=1)
    """Threads of the engine. Left out: chosen from the machine's cores."""
    max_images: int = Field(default=16, ge=1)
    """Images that a request to a local vision model may hold."""
    max_image_size: int = Field(default=20 * 2**20, ge=1)
    """Most bytes of an image."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels of an image, by what its header says; more are not decoded."""
    allow_image_urls: bool = False
    """Fetch images that are given by an `http` or `https` address, from public addresses only.
    False: images come in the request, as `data:` URLs."""
    default_params: dict[str, Any] = Field(default_factory=dict)
    """Generation parameters for requests that leave them out. They add to those in `"default"` and
    in `llm_model_dict`."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments handed to the engine as they are, such as vLLM's `{"tensor_parallel_size": 2}`."""


class WorkerSettings(WorkerOptions):
    """One entry of `FSCHAT_MODEL_WORKERS`, and what `Settings.worker` puts together for a model."""

    openai_server: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    """Base URL of a running OpenAI-compatible server (`"http://10.0.0.5:8000/v1"`); it is attached
    as a worker and nothing is started."""
    api_key: SecretStr | None = None
    """Key for `openai_server`, where it wants one."""
    upstream_model: str | None = None
    """Name `openai_server` knows the model by, where it is not this entry's name."""


class OnlineModel(WorkerOptions):
    """One entry of `ONLINE_LLM_MODEL`: a model behind an online API.

    A provider may have keys of its own; they are kept as they are, and those that look like secrets
    are guarded like secrets. Worker options (see FSCHAT_MODEL_WORKERS) may stand here too.
    """

    model_config = ConfigDict(extra="allow")

    model_name: str | None = None
    """Name of the model at the provider."""
    version: str | None = None
    """The same as `model_name`, under the name most provider classes use."""
    api_base_url: str | None = None
    """Base URL of the provider's API."""
    api_key: SecretStr = SecretStr("")
    """Key for the provider's API."""
    secret_key: SecretStr | None = None
    """Second key, for providers that want two (Baidu)."""
    api_secret: SecretStr | None = Field(default=None, alias="APISecret")
    """API secret, for providers that want one (XingHuo)."""
    openai_proxy: str | None = None
    """HTTP proxy through which the API is reached."""
    provider: str | None = None
    """Class of `dev_opsgpt/service/model_workers/` that talks to the API, such as
    `"ExampleWorker"`. An entry with a provider is started; one without is started when `LLM_MODELs`
    names it, by the provider for OpenAI's own API."""

    @model_validator(mode="after")
    def _guard_extras(self) -> Self:
        extras = self.__pydantic_extra__ or {}
        extras.update(wrap_secrets(extras))
        return self

    @property
    def upstream_model(self) -> str | None:
        """The provider's name for the model: `model_name`, else `version`."""
        return self.model_name or self.version

    def plain(self) -> dict[str, Any]:
        """Give the entry as written, secrets in the clear: for the provider, never for a log."""
        plain: dict[str, Any] = unwrap_secrets(self.model_dump(by_alias=True, exclude_unset=True))
        return plain
