"""How a GGUF model is loaded: checked first, then with these parameters of llama.cpp's."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import xllamacpp

from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_memory import check_memory, uses_gpu
from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.worker.engine import EngineError
from dev_opsgpt.worker.memory import resident
from dev_opsgpt.worker.progress import Tell, silent

# Where nobody says how long a context should be: the model's own, but no more than this.
MOST_BY_DEFAULT = 8192
# Tokens of a prompt read in one go: a request can be cancelled, and others served, in between.
CPU_BATCH, GPU_BATCH = 128, 512
# Below this size of a file one thread does a model's work faster than several can share it out.
SMALL = 200 * 2**20
# Megabytes of memory for the caches of conversations that lost their slot.
PROMPT_CACHE = 512
# Seconds between two looks at how far a load has come.
LOOK = 0.25


class LlamaOptions(msgspec.Struct, frozen=True):
    """How to run a model. ``context`` is the tokens of one request (None: the model's own),
    ``parallel`` the requests served at the same time, ``gpu_layers`` -1 all that fit, ``threads``
    None as ``threads_of`` says, of the ``share`` of the cores that is this engine's (None: all),
    ``chat_template`` a Jinja template, or ``chatml``, instead of the model's own,
    ``embedding_context`` the most tokens of an input to embed."""

    path: Path
    context: int | None = None
    parallel: int = 5
    gpu_layers: int = -1
    threads: int | None = None
    share: int | None = None
    chat_template: str | None = None
    embedding_context: int = 2048


def context_of(model: Gguf, asked: int | None) -> int:
    """Tokens of one request's context: never more than the model was trained for."""
    trained = model.trained_context
    wanted = asked or min(trained or MOST_BY_DEFAULT, MOST_BY_DEFAULT)
    return min(wanted, trained) if trained else wanted


def threads_of(model: Gguf, asked: int | None, share: int | None = None) -> int:
    """Threads to compute with: as asked, else one for a small model, else the engine's share of the
    cores, but one less than there are.

    llama.cpp's threads wait for each other in busy loops, many times a token. Where there are as
    many as cores, and anything else runs, a token takes a hundred times as long.
    """
    if asked:
        return asked
    if model.size < SMALL:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(cores - 1, share or cores))


def generation_params(model: Gguf, options: LlamaOptions) -> Any:
    """Parameters to generate text. Raises ``EngineError``."""
    context = context_of(model, options.context)
    batch = GPU_BATCH if uses_gpu(options.gpu_layers) else CPU_BATCH
    params = _params(model, options, context, batch=batch)
    params.cache_ram_mib = PROMPT_CACHE
    if options.chat_template is not None:
        template = options.chat_template
        if template != "chatml" and "{{" not in template and "{%" not in template:
            raise EngineError(
                f"The chat template {template!r} is neither a Jinja template nor 'chatml'."
            )
        params.chat_template = template
    return params


def embedding_params(model: Gguf, options: LlamaOptions) -> Any:
    """Parameters to embed texts: the mean over the tokens, unless the file says otherwise."""
    context = context_of(model, options.embedding_context)
    # llama.cpp aborts over mean pooling where its slots do not share a batch out evenly.
    batch = context + -context % options.parallel
    params = _params(model, options, context, batch=batch)
    params.embedding = True
    # With a cache for each slot llama.cpp cuts inputs of different lengths into several batches,
    # and the vector of a longer one is that of its last part.
    params.kv_unified = True
    params.warmup = False
    pooling = model.of_architecture("pooling_type")
    poolings = xllamacpp.llama_pooling_type
    params.pooling_type = poolings(pooling) if pooling else poolings.LLAMA_POOLING_TYPE_MEAN
    return params


def _params(model: Gguf, options: LlamaOptions, context: int, *, batch: int) -> Any:
    total = context * options.parallel
    check_memory(model, total, gpu_layers=options.gpu_layers)
    params = xllamacpp.CommonParams()
    params.model.path = str(options.path)
    params.n_ctx = total
    params.n_parallel = options.parallel
    params.n_batch = params.n_ubatch = batch
    params.n_gpu_layers = options.gpu_layers
    params.use_jinja = True
    threads = threads_of(model, options.threads, options.share)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return params


async def load(model: Gguf, params: Any, parallel: int, progress: Tell = silent) -> LlamaServer:
    """A running server. Raises ``EngineError`` with what is known of the cause."""
    server = LlamaServer(params, parallel=parallel)
    watching = asyncio.create_task(_watch(model, progress))
    try:
        await server.start()
    except EngineError:
        raise EngineError(
            f"llama.cpp could not load {model.path}{_projector_of(model, params)}: the file is "
            f"damaged, its architecture ({model.architecture or 'unknown'}) or quantisation is not "
            "one it knows, its chat template does not render, or memory ran out."
        ) from None
    finally:
        watching.cancel()
    return server


async def _watch(model: Gguf, progress: Tell) -> None:
    """Tells how much of the file has come into memory; llama.cpp itself does not say."""
    before = resident()
    while before is not None:
        mapped = (resident() or before) - before
        progress("loading the weights", min(1.0, max(0.0, mapped / max(1, model.size))))
        await asyncio.sleep(LOOK)


def _projector_of(model: Gguf, params: Any) -> str:
    """What to say of the projector that a model was to be loaded with."""
    path = params.mmproj.path
    if not path:
        return ""
    width = Gguf(Path(path), "projector").metadata.get("clip.vision.projection_dim")
    if width is not None and width != model.embedding_size:
        return (
            f" with the projector {path}, which does not match it (it makes vectors of {width} "
            f"numbers, the model takes {model.embedding_size})"
        )
    return f" with the projector {path}"
