"""Layers of configuration, and which of them a value came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev_opsgpt.config.problems import KeyPath, Problem


def deep_merge(base: Any, over: Any) -> Any:
    """Lay `over` on `base`: dictionaries are merged key by key, anything else replaces.

    Neither is changed, and no dictionary of the result belongs to them.
    """
    if not isinstance(over, Mapping):
        return over
    merged = dict(base) if isinstance(base, Mapping) else {}
    for key, value in over.items():
        merged[key] = deep_merge(merged.get(key), value)
    return merged


@dataclass(frozen=True)
class Layer:
    """Values from one place; `label` names it as the user knows it."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """The layers, lowest first, and what was noticed while reading them."""

    layers: tuple[Layer, ...] = ()
    notes: tuple[Problem, ...] = ()
    config_dir: Path | None = None

    def merged(self) -> dict[str, Any]:
        """Give all layers laid on each other."""
        merged: dict[str, Any] = {}
        for layer in self.layers:
            merged = deep_merge(merged, layer.values)
        return merged

    def source_of(self, path: KeyPath) -> str:
        """Name the layer that set the value at `path`, or where it is missing from."""
        best, depth = "configuration", 0
        for layer in self.layers:
            reached = _reach(layer.values, path)
            if reached and reached >= depth:
                best, depth = layer.label, reached
        return best


def _reach(value: Any, path: KeyPath) -> int:
    """Count how many steps of `path` exist in `value`."""
    for steps, key in enumerate(path):
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping) or key not in value:
            return steps
        value = value[key]
    return len(path)
