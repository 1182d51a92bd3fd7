"""A model, decoder block by decoder block: what flows into each layer over calibration text, the
layer quantised, and the block run again so that the next one sees what it will see."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gptq_quantiser.packing import WORD
from gptq_quantiser.solver import Recipe, Solved, solve


class _EnoughError(Exception):
    """Raised to end a forward pass once the first block's inputs are known."""


def quantise_model(
    model: nn.Module,
    batches: Sequence[Tensor],
    recipe: Recipe,
    tell: Callable[[str, float], None],
) -> dict[str, Solved]:
    """Quantises the linear layers of a model's decoder blocks, by their names in the model, and
    puts into the model what the integers stand for. ``batches`` are token ids [texts, tokens].

    The embeddings, the norms and the layer that gives the logits stay as they are, and so does a
    layer whose sizes do not fill whole words.
    """
    prefix, blocks = decoder_blocks(model)
    flows = _first_inputs(model, blocks[0], batches)
    solved: dict[str, Solved] = {}
    with torch.no_grad():
        for number, block in enumerate(blocks):
            layers = {n: m for n, m in block.named_modules() if _fits(m, recipe.bits)}
            hessians = _hessians(block, layers, flows)
            for name, layer in layers.items():
                found = solve(layer.weight, hessians[name], recipe)
                layer.weight.data = found.weight.to(layer.weight.dtype)
                solved[f"{prefix}.{number}.{name}"] = found
            flows = [(_run(block, flow), flow[1]) for flow in flows]
            tell(f"block {number + 1} of {len(blocks)}", (number + 1) / len(blocks))
    return solved


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of the blocks: the one list as long as the model has layers."""
    wanted = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, module
    raise ValueError(f"the model has no list of {wanted} decoder blocks")


Flow = tuple[Tensor, dict[str, Any]]


def _first_inputs(model: nn.Module, block: nn.Module, batches: Sequence[Tensor]) -> list[Flow]:
    """What goes into the first block: hidden states, and the arguments that all blocks get."""
    flows: list[Flow] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        flows.append((args[0] if args else kwargs.pop("hidden_states"), kwargs))
        raise _EnoughError

    hook = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with torch.no_grad():
            for batch in batches:
                try:
                    model(batch, use_cache=False)
                except _EnoughError:
                    continue
    finally:
        hook.remove()
    return flows


def _hessians(
    block: nn.Module, layers: dict[str, nn.Linear], flows: Sequence[Flow]
) -> dict[str, Tensor]:
    """The sum of x x^T over all inputs x of each layer."""
    sums = {name: torch.zeros(m.in_features, m.in_features) for name, m in layers.items()}

    def adder(name: str) -> Callable[..., None]:
        def add(_: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0].reshape(-1, args[0].shape[-1]).float()
            sums[name] += x.t() @ x

        return add

    hooks = [m.register_forward_pre_hook(adder(name)) for name, m in layers.items()]
    for flow in flows:
        _run(block, flow)
    for hook in hooks:
        hook.remove()
    return sums


def _run(block: nn.Module, flow: Flow) -> Tensor:
    hidden, kwargs = flow
    out = block(hidden, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def _fits(module: nn.Module, bits: int) -> bool:
    sizes = (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (1, 1)
    return all(size * bits % WORD == 0 for size in sizes)
