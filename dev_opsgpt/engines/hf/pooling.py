"""From what a model reads of each token to one vector a text: pooling, and the steps after it.

Source: sentence-transformers, whose results these are. Everything is computed in float32.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dev_opsgpt.engines.hf.checkpoint import Checkpoint, find_files, raise_faults
from dev_opsgpt.engines.hf.sentence_config import SentenceConfig, Step
from dev_opsgpt.worker.engine import EngineError


def _mean(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def _mean_sqrt_len(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9).sqrt()


def _weighted_mean(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    """Later tokens of a causal model have seen more, and count for more."""
    places = torch.arange(1, states.shape[1] + 1, device=states.device).view(1, -1, 1)
    weights = mask * places
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _max(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    return states.masked_fill(mask == 0, float("-inf")).amax(1)


def _first(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    at = mask.squeeze(-1).argmax(1)
    return states[torch.arange(len(states), device=states.device), at]


def _last(states: Tensor, _: Tensor, lengths: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), lengths - 1]


_POOLINGS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": _first,
        "max": _max,
        "mean": _mean,
        "mean_sqrt_len_tokens": _mean_sqrt_len,
        "weightedmean": _weighted_mean,
        "lasttoken": _last,
    }
)


class Head:
    """Makes the vectors. ``width`` is the length of what the model says of a token, and
    ``size`` that of the vectors."""

    def __init__(self, config: SentenceConfig, width: int, device: torch.device) -> None:
        self._poolings = [_POOLINGS[name] for name in config.poolings]
        self.size = width * len(self._poolings)
        self._steps: list[Callable[[Tensor], Tensor]] = []
        for step in config.steps:
            made = _MAKERS[step.kind](step, self.size)
            self.size = made.size
            self._steps.append(made.to(device).eval())

    def __call__(self, states: Tensor, lengths: Tensor, skipped: Tensor) -> Tensor:
        """Vectors, [rows, size], of what the model says, [rows, tokens, width].

        Row ``i`` has ``lengths[i]`` tokens and then padding; the first ``skipped[i]`` of them are
        no part of its vector, unless there is nothing else.
        """
        states = states.float()
        places = torch.arange(states.shape[1], device=states.device)
        skipped = torch.where(skipped < lengths, skipped, torch.zeros_like(skipped))
        mask = (places >= skipped[:, None]) & (places < lengths[:, None])
        counted = mask[..., None].float()
        vectors = torch.cat([pool(states, counted, lengths) for pool in self._poolings], -1)
        for step in self._steps:
            vectors = step(vectors)
        return vectors


class _Normalize(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


class _LayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.norm = nn.LayerNorm(size)

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.norm(vectors)
        return found


class _Dense(nn.Module):
    def __init__(self, before: int, after: int, *, bias: bool, own: bool, act: nn.Module) -> None:
        super().__init__()
        self.size = after
        self.linear = nn.Linear(before, after, bias=bias)
        self.act = act
        self.own = own
        if own and before != after:
            self.residual = nn.Linear(before, after, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.act(self.linear(vectors))
        if self.own:
            found = found + (self.residual(vectors) if hasattr(self, "residual") else vectors)
        return found


def _normalize(step: Step, size: int) -> _Normalize:
    _check_names(step)
    return _Normalize(size)


def _layer_norm(step: Step, size: int) -> _LayerNorm:
    made = _LayerNorm(size)
    _fill(made, step)
    return made


def _dense(step: Step, size: int) -> _Dense:
    _check_names(step)
    config = step.config
    if config.get("in_features") != size:
        raise EngineError(
            f"{step.folder} takes vectors of {config.get('in_features')} numbers; those that come "
            f"to it have {size}."
        )
    dense = _Dense(
        size,
        int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        own=bool(config.get("use_residual", False)),
        act=activation(config.get("activation_function"), step.folder, default=nn.Tanh),
    )
    _fill(dense, step)
    return dense


_MAKERS: Mapping[str, Callable[[Step, int], "_Normalize | _LayerNorm | _Dense"]] = MappingProxyType(
    {"Normalize": _normalize, "LayerNorm": _layer_norm, "Dense": _dense}
)


def activation(named: object, where: object, *, default: type[nn.Module]) -> nn.Module:
    """An activation by the dotted name of its class, which has to be one of torch's; the default
    for None. Raises ``EngineError``."""
    if named is None:
        return default()
    module, _, name = str(named).rpartition(".")
    known = module.startswith("torch.nn") and (name in nn.modules.activation.__all__)
    if not known and str(named) != "torch.nn.modules.linear.Identity":
        raise EngineError(f"{where}: the activation {named} is not known here.")
    made: nn.Module = getattr(nn, name)()
    return made


def _check_names(step: Step) -> None:
    for key in ("module_input_name", "module_output_name"):
        if step.config.get(key) not in (None, "sentence_embedding"):
            raise EngineError(f"{step.folder}: {key} {step.config[key]!r} is not served.")


def _fill(module: nn.Module, step: Step) -> None:
    """Reads a step's weights, as float32. Raises ``EngineError``."""
    checkpoint = Checkpoint(find_files(step.folder))
    wanted = module.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in checkpoint.heads]
    raise_faults(step.folder, faults)
    found = {name: checkpoint.read(name).float() for name in wanted}
    faults = [
        f"{name} has shape {list(found[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if found[name].shape != tensor.shape
    ]
    raise_faults(step.folder, faults)
    module.load_state_dict(found)
