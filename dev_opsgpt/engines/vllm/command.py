"""How vLLM is started: its command line and its environment, made from the options. Pure but for
what it is told of the machine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev_opsgpt.engines.vllm.arguments import Schema, command_line, plain
from dev_opsgpt.engines.vllm.options import VllmOptions
from dev_opsgpt.engines.vllm.python import INSIDE
from dev_opsgpt.worker.engine import EngineError

SERVER = "vllm.entrypoints.openai.api_server"
API_KEY = "VLLM_API_KEY"
DOOR = "opsgpt_door.Door"
LOOPBACK = ("127.0.0.1", "::1")
GIB = 1 << 30
# Of a CPU's memory for the KV cache, where nobody says how much: vLLM would take nearly all.
_CPU_CACHE_GIB = 4
_CPU_CACHE_SHARE = 4
_CACHE_ARGS = ("kv_cache_memory_bytes", "gpu_memory_utilization")
_OWN_ENVIRON = ("OPSGPT", "MODEL_", "MMPROJ_PATH", "LLM_BASE_URL", "VLLM_API_KEY", "PYTHON")
# Parameters for requests that leave them out, for which vLLM has defaults. Of max_tokens it would
# make a limit.
_DEFAULTS = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty"),
)


@dataclass(frozen=True)
class Machine:
    """The cores that this process may use, and the bytes of memory that are free."""

    cores: Sequence[int]
    memory: int


@dataclass(frozen=True)
class Command:
    """What is run, without the port and the key, which are new for each life. ``tools`` tells
    whether the model calls tools by itself."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    tools: bool


def base_environ(inherited: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of vLLM's interpreter: this process's without what is this project's own,
    secrets first of all; on top of it the user's. Nothing is reported to vLLM's makers."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_OWN_ENVIRON)}
    ours = {
        "PYTHONPATH": str(INSIDE),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
    }
    return ours | kept | dict(given) | {"PYTHONPATH": str(INSIDE), "PYTHONSAFEPATH": "1"}


def make_command(
    python: str,
    options: VllmOptions,
    schema: Schema,
    inherited: Mapping[str, str],
    machine: Machine,
) -> Command:
    """The command for some options. Raises ``EngineError`` in one line that names the key."""
    if options.device not in ("auto", schema.device):
        built = f"the vLLM of {python} is built for {schema.device}"
        raise EngineError(f'"device" is {options.device}, and {built}.')
    given = {plain(name): value for name, value in options.engine_args.items()}
    ours = _ours(options, given, schema)
    user = command_line(options.engine_args, schema)
    argv = (
        python,
        "-m",
        SERVER,
        f"--model={options.path}",
        f"--host={options.host}",
        f"--middleware={DOOR}",
        "--served-model-name",
        *options.names,
        *command_line({name: value for name, value in ours.items() if schema.find(name)}, schema),
        *user,
    )
    environ = base_environ(inherited, options.environ)
    if options.host in LOOPBACK:
        # What vLLM's processes say to each other stays here too.
        environ.setdefault("VLLM_HOST_IP", options.host)
    if schema.device == "cpu":
        environ |= _cpu(options, given, environ, machine)
    tools = given.get("enable_auto_tool_choice") is True
    return Command(argv, environ, tools)


def _ours(options: VllmOptions, given: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The arguments that follow from the other keys of the configuration."""
    found: dict[str, Any] = {"max_num_seqs": options.limit}
    # Lines for every request would be most of the log; the gateway writes its own.
    found["disable_uvicorn_access_log"] = True
    found["disable_fastapi_docs"] = True
    # A tool that must be called is called by its schema, as with every engine.
    found["tool_strict_level"] = "parameter"
    if options.context is not None:
        found["max_model_len"] = options.context
    found |= _parallel(options, given, schema)
    if options.default_params:
        found["override_generation_config"] = _generation(options.default_params)
    for name in found:
        same = given.get(name) == found[name]
        if name in given and name in _ASKED_TWICE and not same:
            key = _ASKED_TWICE[name]
            raise EngineError(f'engine_args["{name}"] contradicts "{key}"; write one of them.')
    return {name: value for name, value in found.items() if name not in given}


_ASKED_TWICE = {"max_model_len": "n_ctx", "override_generation_config": "default_params"}


def _parallel(options: VllmOptions, given: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The sizes of vLLM's parallelism: as given, else one part for each of the GPUs. They are not
    to need more GPUs than there are."""
    tensor, pipeline = (_size(given, f"{kind}_parallel_size") for kind in ("tensor", "pipeline"))
    listed = [one for one in (options.gpus or "").split(",") if one.strip()]
    there = len(listed) if listed else options.num_gpus
    if listed and options.num_gpus is not None and options.num_gpus > len(listed):
        raise EngineError(
            f'"num_gpus" is {options.num_gpus}, and "gpus" lists {len(listed)}: {options.gpus}.'
        )
    if schema.device == "cpu":
        return {}
    if there is not None and (tensor or 1) * (pipeline or 1) > there:
        raise EngineError(
            f"engine_args: tensor_parallel_size {tensor or 1} times pipeline_parallel_size "
            f'{pipeline or 1} needs more GPUs than the {there} that "num_gpus" and "gpus" give.'
        )
    wanted = options.num_gpus or there
    if tensor is None and wanted is not None and wanted > 1:
        if wanted % (pipeline or 1):
            raise EngineError(
                f"engine_args: pipeline_parallel_size {pipeline} does not divide {wanted} GPUs."
            )
        return {"tensor_parallel_size": wanted // (pipeline or 1)}
    return {}


def _size(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise EngineError(f'engine_args["{name}"] must be a whole number from 1, not {value!r}.')
    return value


def _generation(params: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [name for name in params if name not in _DEFAULTS]
    if unknown:
        known = ", ".join(_DEFAULTS)
        raise EngineError(
            f'default_params["{unknown[0]}"]: vLLM has a default only for {known}; requests go '
            "to it as they are."
        )
    return dict(params)


def _cpu(
    options: VllmOptions, given: Mapping[str, Any], environ: Mapping[str, str], machine: Machine
) -> dict[str, str]:
    """On a CPU: which cores compute, and how much memory the KV cache takes; what the environment
    says already stays.

    Left to itself vLLM keeps one core free and uses one thread of each of the others, which on a
    small machine is half of it. Threads of a given number are not bound to cores: two engines would
    be bound to the same.
    """
    found = {}
    if "VLLM_CPU_OMP_THREADS_BIND" not in environ:
        if options.threads is not None:
            found["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
            found["OMP_NUM_THREADS"] = str(options.threads)
        elif _world(given) == 1:
            found["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, machine.cores))
    if "VLLM_CPU_KVCACHE_SPACE" not in environ and not any(n in given for n in _CACHE_ARGS):
        share = machine.memory // GIB // _CPU_CACHE_SHARE
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(_CPU_CACHE_GIB, share)))
    return found


def _world(given: Mapping[str, Any]) -> int:
    sizes = [given.get(f"{kind}_parallel_size") or 1 for kind in ("tensor", "pipeline", "data")]
    return int(sizes[0] * sizes[1] * sizes[2])


def missing(path: Path | str) -> str | None:
    """What is wrong with a model's place, in one line; None where nothing is, or it is a name for
    vLLM to look up."""
    if not isinstance(path, Path):
        return None if _hub_name(path) else f"there is no model at {path}."
    if not path.exists():
        return f"there is no model at {path}."
    if path.is_dir() and not (path / "config.json").is_file():
        return f"{path} holds no config.json, so it is no model in Hugging Face format."
    if path.is_dir():
        return _broken_config(path / "config.json")
    return None


def _broken_config(path: Path) -> str | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{path} cannot be read: {error}"
    return None if isinstance(found, dict) else f"{path} is no JSON object."


def _hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith(("/", ".", "~"))
