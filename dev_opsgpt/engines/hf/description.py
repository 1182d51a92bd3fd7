"""What a model is, before its weights are read: configuration, class, tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from dev_opsgpt.engines.hf.source import check_tokenizer_files, read_json
from dev_opsgpt.worker.engine import EngineError

_AUTO = "AutoModelForCausalLM"
_KEY = 'FSCHAT_MODEL_WORKERS["<model>"]["trust_remote_code"] = True'


@dataclass(frozen=True)
class Description:
    """``raw`` is the content of ``config.json``, ``config`` what transformers makes of it, and
    ``model_class`` the class that loads such a model. Tensors under the names ``unused`` begin with
    may be missing."""

    folder: Path
    raw: Mapping[str, Any]
    config: Any
    model_class: Any
    unused: tuple[str, ...] = ()

    def skeleton(self) -> nn.Module:
        """The model without memory for its weights. Raises ``EngineError``."""
        try:
            with torch.device("meta"):
                model: nn.Module = self.model_class._from_config(self.config)
        except Exception as error:
            # A configuration can make a model's code fail in any way.
            raise EngineError(
                f"{self.folder}: no model can be made from its config.json: {one_line(error)}"
            ) from None
        return model


def describe(folder: Path, raw: Mapping[str, Any], trust_remote_code: bool) -> Description:
    """Reads what a model is. Raises ``EngineError``: its architecture is unknown, writes no text,
    or is code of the model's own, which is run only where that is allowed."""
    config = read_configuration(folder, raw, trust_remote_code)
    own = (getattr(config, "auto_map", None) or {}).get(_AUTO)
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if own is not None and trust_remote_code:
        return Description(folder, raw, config, get_class_from_dynamic_module(own, str(folder)))
    if own is not None and not known:
        raise needs_code(folder)
    if not known:
        raise EngineError(
            f"{folder}: a model of type {raw.get('model_type')!r} is no causal language model."
        )
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if model_class.config_class is (config.sub_configs or {}).get("text_config"):
        # A vision model of which only the part for text is loaded.
        config = config.get_text_config()
    return Description(folder, raw, config, model_class)


def read_configuration(folder: Path, raw: Mapping[str, Any], trust_remote_code: bool) -> Any:
    """What transformers makes of a model's ``config.json``. Raises ``EngineError``."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        # Whatever a configuration says: transformers checks it, and a model's own code may run.
        raise _refused(folder, raw, error) from None


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """A folder's tokenizer. Raises ``EngineError``."""
    check_tokenizer_files(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        # The libraries that read tokenizers raise what they like for damaged files.
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise needs_code(folder) from None
        raise EngineError(f"The tokenizer of {folder} cannot be read: {one_line(error)}") from None


def generation_config(folder: Path, model: Any) -> GenerationConfig:
    """A folder's generation configuration, or what the model's own configuration makes of it.
    Raises ``EngineError``."""
    path = folder / "generation_config.json"
    if read_json(path) is None:
        return GenerationConfig.from_model_config(model.config)
    try:
        return GenerationConfig.from_pretrained(folder)
    except (ValueError, TypeError, OSError) as error:
        raise EngineError(f"{path} is not understood: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """An error of a library, in one line that is not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def _refused(folder: Path, raw: Mapping[str, Any], error: Exception) -> EngineError:
    if "trust_remote_code" in str(error):
        return needs_code(folder)
    if "does not recognize this architecture" in str(error) or "model_type" not in raw:
        kind = raw.get("model_type") or ", ".join(raw.get("architectures") or ()) or "none named"
        return EngineError(f"{folder}: the installed transformers knows no architecture {kind!r}.")
    return EngineError(f"{folder}: its config.json is not understood: {one_line(error)}")


def needs_code(folder: Path) -> EngineError:
    """What is told where a model comes with code and none may be run."""
    return EngineError(
        f"{folder} needs Python code that comes with the model. If you trust it, set {_KEY}."
    )
