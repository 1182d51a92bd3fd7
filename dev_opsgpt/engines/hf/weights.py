"""The weights of a model, from its files into memory and onto its devices."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from logging import getLogger
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import logging

from dev_opsgpt.engines.hf.checkpoint import (
    Checkpoint,
    Lazy,
    check_index,
    find_files,
    raise_faults,
)
from dev_opsgpt.engines.hf.description import Description, one_line
from dev_opsgpt.engines.hf.devices import Placement, free_on
from dev_opsgpt.engines.hf.gptq_kernels import could_use, with_kernels
from dev_opsgpt.engines.hf.gptq_loading import PackedCheckpoint, own_description
from dev_opsgpt.engines.hf.int8 import to_int8
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.engines.hf.quantised import packed_format
from dev_opsgpt.engines.memory import available_memory
from dev_opsgpt.worker.engine import EngineError

log = getLogger(__name__)
_GIB = 2**30
_CPU = torch.device("cpu")


def load_weights(
    description: Description,
    options: HfOptions,
    placement: Placement,
    dtype: torch.dtype,
    tell: Progress,
) -> Any:
    """The model, in eval mode, on its devices. Raises ``EngineError``."""
    folder = description.folder
    said = own_description(folder, description.raw)
    form = packed_format(said, options.gptq)
    if form is None and said is not None:
        return _by_transformers(description, placement, dtype, options, said)
    checkpoint = Checkpoint(find_files(folder, options.gptq.checkpoint if options.gptq else None))
    check_index(folder, checkpoint)
    if form is None and any(name.endswith(".qweight") for name in checkpoint.heads):
        raise EngineError(
            f"{folder} holds packed weights, and nothing says how; set gptq_wbits or awq_wbits."
        )
    skeleton = description.skeleton()
    # In 8 bits a model is made small before it goes to a GPU.
    device = _CPU if options.load_8bit else placement.device
    packed = None if form is None else PackedCheckpoint(folder, checkpoint, form, skeleton)
    if packed is not None:
        packed.check()
        if said is not None and could_use(packed.form, device):
            by_kernels = partial(_by_transformers, description, placement, dtype, options, said)
            if (model := with_kernels(packed, by_kernels)) is not None:
                return model
    _check_memory(description, skeleton, placement, dtype, options)
    if packed is None:
        state = {name: _stored(checkpoint, name) for name in checkpoint.heads}
    else:
        unpack_on = device if device.type == "cuda" and placement.room is None else _CPU
        state = packed.state_dict(dtype, unpack_on)
    text = "reading weights" if form is None else f"unpacking {form.bits}-bit weights"
    model = _filled(description, _counted(state, text, tell), placement, dtype, options.load_8bit)
    if options.load_8bit:
        to_int8(model, model.get_output_embeddings(), lambda done: tell("rounding to 8 bits", done))
        model = _spread(model, placement)
    return model.eval()


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers' tables and bars out of the log: what is wrong is told in one line."""
    chatter: Any = logging
    verbosity, bars = (
        chatter.get_verbosity(),
        chatter.is_progress_bar_enabled(),
    )
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()


def _filled(
    description: Description,
    state: Mapping[str, Lazy],
    placement: Placement,
    dtype: torch.dtype,
    on_cpu: bool,
) -> Any:
    """The model with the tensors of a state dict. Raises ``EngineError`` that names those that are
    missing or of another shape."""
    config = description.config
    if getattr(config, "quantization_config", None) is not None:
        # The weights are floats by now; transformers would look for a library that packs them.
        del config.quantization_config
    try:
        model, told = description.model_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **({} if on_cpu else _device_map(placement)),
        )
    except EngineError:
        raise
    except Exception as error:
        # Out of memory, a library that is missing, a model's own code: told as it is.
        raise _not_loaded(description, error) from None
    faults = [
        f"{name} is missing"
        for name in sorted(told["missing_keys"])
        if not name.startswith(description.unused)
    ]
    faults += [
        f"{name} has shape {list(stored)}, not {list(wanted)}"
        for name, stored, wanted in sorted(told["mismatched_keys"], key=lambda found: found[0])
    ]
    raise_faults(description.folder, faults)
    if told["unexpected_keys"]:
        names = ", ".join(sorted(told["unexpected_keys"])[:4])
        log.warning(
            "%s: %d tensors that the model has no place for: %s",
            *(description.folder, len(told["unexpected_keys"]), names),
        )
    return model


def _by_transformers(
    description: Description,
    placement: Placement,
    dtype: torch.dtype,
    options: HfOptions,
    said: Mapping[str, Any],
) -> Any:
    """The model of a checkpoint that is quantised, as ``said``, in a way which transformers reads
    itself."""
    if options.load_8bit:
        raise EngineError("load_8bit is set, and the checkpoint is quantised already; take it off.")
    config = deepcopy(description.config)
    config.quantization_config = {"quant_method": "gptq", **said}
    try:
        model: Any = description.model_class.from_pretrained(
            description.folder,
            config=config,
            dtype=dtype,
            trust_remote_code=options.trust_remote_code,
            **_device_map(placement),
        )
    except Exception as error:
        # Each way of quantising has its library, and each library its errors.
        raise _not_loaded(description, error) from None
    model.eval()
    return model


def _not_loaded(description: Description, error: Exception) -> EngineError:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return EngineError(f"{description.folder} does not fit into memory: {one_line(error)}")
    return EngineError(f"{description.folder} could not be loaded: {one_line(error)}")


def _device_map(placement: Placement) -> dict[str, Any]:
    """What tells ``from_pretrained`` where the parts of a model go; nothing for the CPU."""
    if placement.room is not None:
        return {"device_map": "auto", "max_memory": _room(placement.room)}
    return {} if placement.device == _CPU else {"device_map": {"": placement.device}}


def _spread(model: nn.Module, placement: Placement) -> nn.Module:
    """A model that was made on the CPU, where it belongs."""
    if placement.room is None:
        return model.to(placement.device)
    from accelerate import dispatch_model, infer_auto_device_map

    whole = list(getattr(model, "_no_split_modules", None) or ())
    room = _room(placement.room)
    # Eight-bit weights are buffers: without the word they would all be put on the GPU.
    found = infer_auto_device_map(
        model, max_memory=room, no_split_module_classes=whole, offload_buffers=True
    )
    spread: nn.Module = dispatch_model(model, device_map=found, offload_buffers=True)
    return spread


def _room(gpus: Mapping[int, int]) -> dict[int | str, int]:
    """Bytes for weights on each device, under accelerate's names for them."""
    room: dict[int | str, int] = {"cpu": available_memory() or 0}
    for index, size in gpus.items():
        room[index] = size
    return room


def _stored(checkpoint: Checkpoint, name: str) -> Lazy:
    return Lazy(lambda: checkpoint.read(name))


def _counted(state: Mapping[str, Lazy], text: str, tell: Progress) -> dict[str, Lazy]:
    """The same tensors, and ``tell`` hears how many have been read."""
    lock, read = Lock(), 0

    def counted(lazy: Lazy) -> Lazy:
        def make() -> Tensor:
            nonlocal read
            tensor = lazy[...]
            with lock:
                read += 1
                tell(text, read / len(state))
            return tensor

        return Lazy(make)

    return {name: counted(lazy) for name, lazy in state.items()}


def _check_memory(
    description: Description,
    skeleton: nn.Module,
    placement: Placement,
    dtype: torch.dtype,
    options: HfOptions,
) -> None:
    """Raises ``EngineError`` where a model cannot fit; asked before anything is read, because a
    system that runs out of memory kills the process without a word."""
    sizes = {id(p): p.numel() * dtype.itemsize for p in skeleton.parameters()}
    needed, where = sum(sizes.values()), "memory"
    available = available_memory()
    if placement.device.type == "cuda" and not options.load_8bit:
        if placement.room is not None:
            available = sum(placement.room.values()) + (available or 0)
            where = "the memory of its GPUs and of the machine"
        else:
            available = free_on(placement.device)
            where = f"the memory of {placement.device}"
    if available is not None and needed > available:
        raise EngineError(
            f"{description.folder} does not fit into {where}: its weights need "
            f"{needed / _GIB:.1f} GiB as {str(dtype).removeprefix('torch.')}, "
            f"{available / _GIB:.1f} GiB are free."
        )
