"""GPTQModel's kernels, which compute with the packed integers: where they are installed, on CUDA,
and right.

They need a quarter of the memory. They are not always right (one is wrong for ``desc_act``, in some
versions), so each layer's outputs are compared with those of our own unpacking before a model is
used; where one differs, the model is unpacked.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional

from dev_opsgpt.engines.hf.gptq import dequantise
from dev_opsgpt.engines.hf.gptq_loading import PackedCheckpoint
from dev_opsgpt.engines.hf.quantised import PackedFormat

log = logging.getLogger(__name__)
# transformers loads such models by both.
_NEEDED = ("gptqmodel", "optimum")
# Rows of random inputs, and how far outputs may be apart, in parts of how far they spread.
_ROWS, _TOLERANCE = 16, 0.02


def could_use(form: PackedFormat, device: torch.device) -> bool:
    """Whether there are kernels for a format on a device."""
    there = all(find_spec(package) is not None for package in _NEEDED)
    return there and form.method == "gptq" and device.type == "cuda"


def with_kernels(packed: PackedCheckpoint, load: Callable[[], Any]) -> Any:
    """The model that ``load`` gives, which loads it by transformers; None where that fails or its
    outputs are not right."""
    try:
        model = load()
        wrong = wrong_layer(model, packed)
    except Exception as error:
        # Another project's kernels, compiled on the spot: they can fail in any way.
        log.warning("GPTQModel's kernels are not used: %s: %s", type(error).__name__, error)
        return None
    if wrong is not None:
        log.warning("GPTQModel's kernels are not used: they are wrong for %s", wrong)
        return None
    log.info("GPTQModel's kernels are used for %d layers", len(packed.layers))
    return model


def wrong_layer(model: Any, packed: PackedCheckpoint) -> str | None:
    """The first packed layer whose outputs are not those of the weights that it stands for, None
    where all are right."""
    modules = dict(model.named_modules())
    for layer in packed.layers:
        module = modules.get(layer)
        if module is None:
            return layer
        device = next((tensor.device for tensor in module.buffers()), model.device)
        linear = packed.packed(layer, device)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(_ROWS, linear.inputs, generator=generator).to(device, model.dtype)
        with torch.no_grad():
            wanted = functional.linear(x, dequantise(linear, model.dtype)).float()
            bias = getattr(module, "bias", None)
            found = module(x).float() - (0 if bias is None else bias.float())
        if not bool(((found - wanted).abs() <= _TOLERANCE * wanted.std()).all()):
            return layer
    return None
