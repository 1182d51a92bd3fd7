"""The whole configuration as one typed, fixed object, and how it is loaded."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from dev_opsgpt.config import environment, plan, sources
from dev_opsgpt.config.explain import explain
from dev_opsgpt.config.legacy import sift_legacy
from dev_opsgpt.config.models import (
    Device,
    LocalModel,
    OnlineModel,
    Seconds,
    Section,
    WorkerOptions,
    WorkerSettings,
)
from dev_opsgpt.config.origin import Origin
from dev_opsgpt.config.paths import base_url, find_config_dir
from dev_opsgpt.config.problems import ConfigError
from dev_opsgpt.config.servers import ControllerSettings, GatewaySettings
from dev_opsgpt.config.sizes import SIZE_PATTERN

OWN_KEYS: frozenset[str] = frozenset(
    {"port", "model_names", "openai_server", "api_key", "upstream_model"}
)
"""What is said of one worker only; the entry "default" does not hand these down."""
_MERGED_KEYS = ("default_params", "engine_args", "engine_env")


class Settings(Section):
    """Every setting of the service. Made by `load_settings`; keys are those of the files in
    configs/."""

    model_config = ConfigDict(populate_by_name=True)

    llm_model: str = Field(default="", alias="LLM_MODEL")
    """The main model: started, and named first."""
    llm_models: tuple[str, ...] = Field(default=(), alias="LLM_MODELs")
    """The models to start."""
    llm_device: Device = Field(default="auto", alias="LLM_DEVICE")
    """Where local models run, unless a worker's `device` says otherwise."""
    use_fastchat: bool = Field(default=True, alias="USE_FASTCHAT")
    """Whether local engines are started; where false, only online models and attached servers are
    served. Left out: true unless `LLM_MODEL` contains "gpt"."""
    local_models: dict[str, LocalModel] = Field(default_factory=dict, alias="llm_model_dict")
    """Local models, by the name clients use."""
    vllm_models: dict[str, str] = Field(default_factory=dict, alias="VLLM_MODEL_DICT")
    """Local models that vLLM serves: name and path. A name that is also in `llm_model_dict` is
    served by vLLM, which needs an environment of its own: see docs/engines.md."""
    online_models: dict[str, OnlineModel] = Field(default_factory=dict, alias="ONLINE_LLM_MODEL")
    """Models behind online APIs, by the name clients use."""
    default_bind_host: str = Field(default="127.0.0.1", alias="DEFAULT_BIND_HOST")
    """Address that servers without a `host` of their own bind to."""
    controller: ControllerSettings = Field(
        default_factory=ControllerSettings, alias="FSCHAT_CONTROLLER"
    )
    """The registry of workers."""
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, alias="FSCHAT_OPENAI_API")
    """The public port."""
    workers: dict[str, WorkerSettings] = Field(default_factory=dict, alias="FSCHAT_MODEL_WORKERS")
    """Worker options: `"default"` for all, and one entry a model."""
    secret: SecretStr | None = Field(default=None, alias="CLUSTER_SECRET")
    """Shared by controller, workers and gateways. Left out: made anew at each start, which is
    enough for one machine; machines that work together need the same one."""
    database_url: SecretStr | None = Field(default=None, alias="DATABASE_URL")
    """Database of keys and usage: `sqlite:///<path>` or `postgresql+psycopg://<user>:<password>@
    <host>/<name>`. Left out: `opsgpt.db` in `DATA_DIR`."""
    redis_url: SecretStr | None = Field(default=None, alias="REDIS_URL")
    """Redis in which gateways on several machines count a key's requests and tokens together:
    `redis://<host>:6379/0`. Left out: shared memory, which is right for one machine."""
    data_dir: str = Field(default="data", alias="DATA_DIR")
    """Folder of what the service keeps; a relative one lies beside the configuration's folder."""
    log_dir: str = Field(default="logs", alias="LOG_DIR")
    """Folder of the log files; a relative one lies beside the configuration's folder."""
    max_loaded_models: int | None = Field(default=None, ge=1, alias="MAX_LOADED_MODELS")
    """Most local models that this machine has loaded at a time, each replica counted; for one more
    the one that was idle for the longest is unloaded. Left out: as many as are asked for."""
    max_loaded_memory: str | None = Field(
        default=None, pattern=SIZE_PATTERN, alias="MAX_LOADED_MEMORY"
    )
    """Most memory that they take together, such as `"12GiB"` (also `GB`, `MiB`, `MB`): the size of
    a model's files, or what its process has if that is more. Left out: no bound."""
    max_loaded_gpu_memory: str | None = Field(
        default=None, pattern=SIZE_PATTERN, alias="MAX_LOADED_GPU_MEMORY"
    )
    """Most memory that they take of this machine's GPUs, all GPUs and all models together: what
    `gpu_memory` says of each, else the size of its files. Left out: no bound."""
    drain_timeout: Seconds = Field(default=30.0, alias="DRAIN_TIMEOUT")
    """Seconds that running requests get to finish when a server stops."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="before")
    @classmethod
    def _hand_down(cls, data: Any) -> Any:
        """Fill what follows from other keys: hosts, devices and USE_FASTCHAT."""
        if not isinstance(data, dict):
            return data
        aliases = {name: field.alias or name for name, field in cls.model_fields.items()}
        data = {aliases.get(key, key): value for key, value in data.items()}
        if isinstance(model := data.get("LLM_MODEL", ""), str):
            data.setdefault("USE_FASTCHAT", "gpt" not in model)
        # A wrong value is not handed down, so that it is told of once.
        bound = data.get("DEFAULT_BIND_HOST")
        host = {"host": bound} if isinstance(bound, str) else {}
        chosen = data.get("LLM_DEVICE")
        device = {"device": chosen} if chosen in get_args(Device) else {}
        for key in ("FSCHAT_CONTROLLER", "FSCHAT_OPENAI_API"):
            if isinstance(section := data.get(key, {}), dict):
                data[key] = host | section
        if isinstance(workers := data.get("FSCHAT_MODEL_WORKERS", {}), dict):
            default = workers.get("default", {})
            if isinstance(default, dict):
                data["FSCHAT_MODEL_WORKERS"] = workers | {"default": host | device | default}
        return data

    @field_validator("secret")
    @classmethod
    def _empty_is_none(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret if secret is not None and secret.get_secret_value() else None

    @property
    def origin(self) -> Origin:
        """Which file or variable each value came from, and what was noticed while reading."""
        return self._origin

    @property
    def controller_address(self) -> str:
        """URL at which workers and gateways find the controller."""
        section = self.controller
        return self.gateway.controller_address or base_url(
            section.host, section.port, section.advertise_host
        )

    @property
    def gateway_address(self) -> str:
        """URL at which clients on this machine find the gateway (without `/v1`)."""
        return base_url(self.gateway.host, self.gateway.port)

    def worker(self, name: str) -> WorkerSettings:
        """Give the effective worker options of a model.

        FSCHAT_MODEL_WORKERS[name] goes before ONLINE_LLM_MODEL[name], that before
        FSCHAT_MODEL_WORKERS["default"]; `default_params`, `engine_args` and `engine_env` are merged
        in the same order, those of llm_model_dict[name] above "default". `port` is None unless it
        is the model's own. A name without entries gets the defaults.
        """
        inherited = _written(self.workers.get("default"), leave_out=OWN_KEYS)
        layers = [inherited]
        if name in self.local_models:
            layers.append({"default_params": self.local_models[name].default_params})
        if name in self.online_models:
            worker_keys = set(WorkerOptions.model_fields)
            online = _written(self.online_models[name])
            layers.append({key: value for key, value in online.items() if key in worker_keys})
        if name != "default":
            layers.append(_written(self.workers.get(name)))
        merged: dict[str, Any] = {}
        for layer in layers:
            for key in _MERGED_KEYS:
                if key in layer:
                    layer[key] = merged.get(key, {}) | layer[key]
            merged |= layer
        return WorkerSettings().model_copy(update=merged)

    def models_to_start(self, names: Sequence[str] | None = None) -> list["plan.ModelPlan"]:
        """Give what `start.py` starts, in order and with ports; `names`: exactly these models.

        Raises ConfigError when a name is declared nowhere.
        """
        return plan.plan_models(self, names)

    def plan_for(self, name: str, taken_ports: Collection[int] = ()) -> "plan.ModelPlan":
        """Plan one more model beside those that run on `taken_ports`; ConfigError as above."""
        return plan.plan_models(self, [name], taken_ports)[0]

    def startable_models(self) -> list[str]:
        """Give the names of all models that this configuration can start, running or not."""
        return plan.startable_models(self)

    def loadable_models(self) -> list[str]:
        """Give the names of the local models that a request may load."""
        return plan.loadable_models(self)


def _written(
    entry: WorkerOptions | None, leave_out: Collection[str] = frozenset()
) -> dict[str, Any]:
    """Give the fields that the user wrote in an entry, by attribute name."""
    if entry is None:
        return {}
    return {key: getattr(entry, key) for key in entry.model_fields_set if key not in leave_out}


def load_settings(
    config_dir: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read and validate the configuration.

    Lowest to highest: model_config.py, server_config.py, local_config.json, environment. The folder
    is `config_dir`, else OPSGPT_CONFIG_DIR, else the project's configs/. Raises ConfigError with
    every problem found. What is doubtful but usable is told by `check_settings`.
    """
    folder = find_config_dir(config_dir, environ)
    layers, problems = sources.read_layers(folder, environ, Settings)
    read = Origin(layers)
    merged, notes = sift_legacy(read.merged(), read)
    origin = Origin(layers, (*notes, *environment.unknown(environ)), folder)
    settings, faults = explain(Settings, merged, origin)
    problems += faults
    if settings is None or problems:
        raise ConfigError(problems)
    settings._origin = origin
    return settings
