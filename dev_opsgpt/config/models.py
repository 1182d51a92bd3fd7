"""The entries that declare models, and the options every worker has.

The text under each field is its documentation: `reference.py` makes docs/configuration.md from it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from dev_opsgpt.config.secrets import unwrap_secrets, wrap_secrets
from dev_opsgpt.config.sizes import SIZE_PATTERN

Port = Annotated[int, Field(ge=1, le=65535)]
Device = Literal["auto", "cpu", "cuda", "mps", "npu", "xpu"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _text_of_number(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else value


EnvironValue = Annotated[SecretStr, BeforeValidator(_text_of_number)]
"""The value of an environment variable, which may be written as a number; it may be a secret."""


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
    name."""
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
    """How many GPUs to use. Without `gpus`: those with the most free memory."""
    max_gpu_memory: str | None = None
    """Most memory to take on each GPU: `"20GiB"`. Weights beyond it stay in the machine's memory
    (transformers engine)."""
    load_8bit: bool = False
    """Load the weights as 8-bit integers (transformers engine)."""
    cpu_offloading: bool | None = None
    """FastChat's key; it has no effect here."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory (transformers engine). `auto`: the checkpoint's, where the
    device computes in it well; else `float32`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model (transformers engine). Code from a stranger can do
    anything that this service can; a model that needs it is refused without."""
    gptq_ckpt: str | None = None
    """Checkpoint with GPTQ weights, a path or a name in the model's folder, where it is not found
    there by itself. GPTQ and AWQ weights are unpacked as they are loaded (transformers engine)."""
    gptq_wbits: Literal[2, 3, 4, 8, 16] = 16
    """Bits of the GPTQ weights, 4 for int4; 16 means not GPTQ, or what the checkpoint says."""
    gptq_groupsize: int = Field(default=-1, ge=-1)
    """GPTQ group size; -1 is one group a column, or what the checkpoint says."""
    gptq_act_order: bool = False
    """The GPTQ checkpoint was made in activation order (`desc_act`)."""
    awq_ckpt: str | None = None
    """Checkpoint file with AWQ weights, where it is not found by itself in the model's folder."""
    awq_wbits: Literal[4, 16] = 16
    """Bits of the AWQ weights; 16 means not AWQ, or what the checkpoint says."""
    awq_groupsize: int = Field(default=-1, ge=-1)
    """AWQ group size; -1 is what the checkpoint says."""
    model_names: list[str] | None = Field(default=None, min_length=1)
    """Names under which clients find the model. Left out: the entry's own name."""
    conv_template: str | None = None
    """FastChat conversation template told to FastChat gateways. Left out: chosen by the model."""
    limit_worker_concurrency: int = Field(default=5, ge=1)
    """Requests a worker runs at the same time. Left out, a vLLM runs 256. An attached server gets
    all that come, unless its own entry says how many."""
    queue_size: int = Field(default=64, ge=0)
    """Requests that may wait beyond those running; the next one is answered 429."""
    queue_timeout: Seconds = 60.0
    """Seconds a request may wait before it is answered 429."""
    stream_interval: int = Field(default=2, ge=1)
    """Tokens between two frames on FastChat's streaming route. OpenAI streams send tokens as they
    come; those of a model that makes over a hundred a second may come several at a time."""
    no_register: bool = False
    """Start the worker without telling the controller about it."""
    replicas: int = Field(default=1, ge=1)
    """How many workers serve this model, each with its own port."""
    load_on_demand: bool = True
    """Whether a local model that does not run is loaded by the first request for it. Online models
    are not loaded."""
    keep_alive: float | None = Field(default=None, ge=-1, allow_inf_nan=False)
    """Seconds after its last request for which a local model stays loaded; -1: for ever. Left out:
    300 for a model that a request has loaded. What `LLM_MODELs` starts, and what somebody loads by
    hand, stays for ever unless the model's own entry has this key."""
    gpu_memory: str | None = Field(default=None, pattern=SIZE_PATTERN)
    """What a replica takes of the GPUs, weights and cache together, such as `"20GiB"`, to be
    counted for `MAX_LOADED_GPU_MEMORY`; it holds nobody to that. Left out: the size of its files,
    nothing for a model of llama.cpp or on the CPU."""
    n_ctx: int | None = Field(default=None, ge=1)
    """Context length in tokens. Left out: what the model was made for."""
    n_gpu_layers: int = Field(default=-1, ge=-1)
    """Layers that llama.cpp puts on the GPU; -1 means all, where there is a GPU."""
    n_threads: int | None = Field(default=None, ge=1)
    """CPU threads of each replica's engine. Left out: an even share of the cores that the models
    which start leave."""
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
    """Arguments handed to the engine as they are, such as vLLM's `{"tensor_parallel_size": 2}`.
    vLLM's are checked against its own parser when it starts. The transformers engine takes
    `prefill_tokens` and `cache_tokens`."""
    engine_env: dict[str, EnvironValue] = Field(default_factory=dict)
    """Environment variables of vLLM's process, such as `{"VLLM_CPU_KVCACHE_SPACE": "8"}` (GiB) or
    `{"HF_TOKEN": "..."}`."""
    vllm_python: str | None = None
    """The Python that has vLLM, or the folder of its environment; a relative path lies beside the
    configuration's folder. Left out: the Python that runs this service."""


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
