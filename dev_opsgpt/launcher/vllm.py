"""What a vLLM worker is made with, read from the settings."""

import shutil
from pathlib import Path

from dev_opsgpt.config import ModelPlan, Settings
from dev_opsgpt.config.models import WorkerSettings
from dev_opsgpt.engines.vllm.arguments import plain
from dev_opsgpt.engines.vllm.engine import VllmEngine
from dev_opsgpt.engines.vllm.options import DEFAULT_LIMIT, VllmOptions
from dev_opsgpt.launcher.backoff import Backoff
from dev_opsgpt.launcher.folders import beside, data_folder
from dev_opsgpt.launcher.gateway_options import secret_of

CACHE = "cache"


def vllm_engine(settings: Settings, plan: ModelPlan, controller: str) -> VllmEngine:
    """The engine behind a model of VLLM_MODEL_DICT, not yet started."""
    return VllmEngine(vllm_options(settings, plan, controller))


def vllm_options(settings: Settings, plan: ModelPlan, controller: str) -> VllmOptions:
    """What it is made with. ``controller`` is the controller's URL."""
    worker = plan.worker
    python = worker.vllm_python
    written = worker.model_fields_set
    return VllmOptions(
        path=plan.path or "",
        names=plan.served_names,
        pause=Backoff().pause,
        python=None if python is None else str(_python(settings, python)),
        host=worker.host,
        advertise_host=worker.advertise_host,
        controller=controller,
        secret=secret_of(settings),
        device=worker.device,
        context=worker.n_ctx,
        limit=vllm_limit(worker),
        threads=worker.n_threads,
        num_gpus=worker.num_gpus if "num_gpus" in written else None,
        gpus=worker.gpus,
        engine_args=worker.engine_args,
        default_params=worker.default_params,
        environ={name: value.get_secret_value() for name, value in worker.engine_env.items()},
        cache=data_folder(settings) / CACHE,
        read_timeout=settings.gateway.read_timeout,
    )


def vllm_limit(worker: WorkerSettings) -> int:
    """How many requests vLLM runs at once: as its own argument says, else as the key for all
    engines does where somebody wrote it."""
    given = {plain(name): value for name, value in worker.engine_args.items()}
    own = given.get("max_num_seqs")
    if isinstance(own, int) and own >= 1:
        return own
    written = "limit_worker_concurrency" in worker.model_fields_set
    return worker.limit_worker_concurrency if written else DEFAULT_LIMIT


def _python(settings: Settings, name: str) -> Path:
    """A program that is found by its name, else a path."""
    found = None if "/" in name else shutil.which(name)
    return beside(settings, name) if found is None else Path(found)
