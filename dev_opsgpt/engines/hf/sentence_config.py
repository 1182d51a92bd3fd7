"""What stands beside an embedding model: how its vectors are made of what it reads.

Source: the files of sentence-transformers, as its versions 2 to 6 write them: ``modules.json``
lists the steps, each with a folder of its own, ``sentence_bert_config.json`` belongs to the first
of them, and ``config_sentence_transformers.json`` has the prompts.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev_opsgpt.engines.hf.source import read_json
from dev_opsgpt.worker.engine import EngineError

# Names of the poolings, in the order in which several are joined; each with the flag that older
# versions write.
POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_AFTER = ("Normalize", "Dense", "LayerNorm", "Dropout")


@dataclass(frozen=True)
class Step:
    """What happens to a vector after the pooling: ``kind`` is Normalize, Dense or LayerNorm,
    ``folder`` has its weights, ``config`` is what its configuration says."""

    kind: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SentenceConfig:
    """How a model's vectors are made.

    ``folder`` holds the transformer. ``poolings`` are names of ``POOLINGS``, whose vectors are
    joined; without ``include_prompt`` a prompt's tokens are no part of them. ``max_length`` is in
    tokens, None where nothing is said. ``dimensions`` is how many numbers of a vector are
    kept, unless a request says another; None for all. ``prompts`` are texts that may stand before
    an input, ``default_prompt`` the name of the one that does unless another is asked for.
    """

    folder: Path
    poolings: tuple[str, ...]
    include_prompt: bool = True
    steps: tuple[Step, ...] = ()
    max_length: int | None = None
    dimensions: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_sentence_config(folder: Path, *, causal: bool) -> SentenceConfig:
    """Reads a model's folder. Raises ``EngineError`` for a step that is not known here.

    Without a ``modules.json`` a vector is the mean over the tokens, or the last token's where the
    model is ``causal`` (only that one has seen the whole text), brought to length 1.
    """
    modules = _modules(folder)
    if modules is None:
        default = "lasttoken" if causal else "mean"
        return SentenceConfig(folder, (default,), steps=(Step("Normalize", folder),))
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise EngineError(
            f"{folder}/modules.json begins with {', '.join(kinds[:2]) or 'nothing'}; "
            "models that begin with Transformer, Pooling are served."
        )
    unknown = sorted(set(kinds[2:]) - set(_AFTER))
    if unknown:
        raise EngineError(f"{folder}/modules.json has steps not known here: {', '.join(unknown)}.")
    transformer = modules[0][1]
    pooling = _config(modules[1][1])
    own = _first_config(transformer)
    told = read_json(folder / "config_sentence_transformers.json") or {}
    prompts = {str(name): str(text) for name, text in (told.get("prompts") or {}).items()}
    named = told.get("default_prompt_name")
    if named is not None and named not in prompts:
        raise EngineError(
            f"{folder}/config_sentence_transformers.json: default_prompt_name {named!r} is none "
            "of its prompts."
        )
    return SentenceConfig(
        transformer,
        _poolings(modules[1][1], pooling),
        include_prompt=bool(pooling.get("include_prompt", True)),
        steps=tuple(Step(kind, at, _config(at)) for kind, at in modules[2:] if kind != "Dropout"),
        max_length=_max_length(own),
        dimensions=told.get("truncate_dim"),
        lower=bool(own.get("do_lower_case")),
        prompts=prompts,
        default_prompt=named,
    )


def _modules(folder: Path) -> list[tuple[str, Path]] | None:
    """The steps as (name of the class, folder); None without a list."""
    path = folder / "modules.json"
    try:
        listed = json.loads(path.read_bytes())
        return [(str(one["type"]).rsplit(".", 1)[-1], folder / one["path"]) for one in listed]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise EngineError(f"{path} is not a list of sentence-transformers' modules.") from None


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json") or {}


def _first_config(folder: Path) -> dict[str, Any]:
    """The transformer's own part, under the first of the names that it has had."""
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"):
        found = read_json(folder / f"sentence_{kind}_config.json")
        if found is not None:
            return found
    return {}


def _max_length(own: dict[str, Any]) -> int | None:
    """The longest input, which some versions write as an option of the tokenizer."""
    found = own.get("max_seq_length")
    for key in ("processor_kwargs", "tokenizer_args"):
        found = (own.get(key) or {}).get("model_max_length") if found is None else found
    return found


def _poolings(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is None:
        found = [name for name, flag in POOLINGS.items() if config.get(flag)]
        # What older versions do where no flag is there at all.
        return tuple(found) or ("mean",)
    names = (named,) if isinstance(named, str) else tuple(named)
    unknown = [str(name) for name in names if name not in POOLINGS]
    if unknown or not names:
        raise EngineError(f"{folder}: the pooling {', '.join(unknown) or 'none'} is not known.")
    return names
