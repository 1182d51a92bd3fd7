"""Where a model in Hugging Face format lies: its folder, or what the hub has under its name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dev_opsgpt.engines.hf.kind import Kind, kind_of
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.worker.engine import EngineError

# Besides weights. Code is fetched only where it may be run.
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "tekken.json", "tokenizer_config.json"),
)


def folder_of(path: Path | str, *, code: bool, progress: Progress) -> Path:
    """The folder of a model, which is downloaded where ``path`` is a name on the hub and its files
    are not in transformers' cache. ``code``: with its Python files. Raises ``EngineError``."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise EngineError(f"{path} is a file; a model in Hugging Face format is a folder.")
    if isinstance(path, Path) or path.count("/") != 1 or path.startswith(("/", ".", "~")):
        raise EngineError(f"There is no folder {path}.")
    return _downloaded(path, code, progress)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``config.json``. Raises ``EngineError``."""
    config = read_json(folder / "config.json")
    if config is None:
        raise EngineError(f"{folder} has no config.json, so it is no model in Hugging Face format.")
    return config


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None where there is no such file. Raises ``EngineError``."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise EngineError(f"{path} does not hold a JSON object.")
    return content


def kind_of_model(path: Path | str) -> Kind:
    """What the model at a folder or on the hub is for. Of one on the hub only two small files are
    fetched. Raises ``EngineError``."""
    folder = Path(path).expanduser()
    if not folder.is_dir() and isinstance(path, str) and path.count("/") == 1:
        folder = _fetch(path, ("config.json", "modules.json"), None)
    else:
        folder = folder_of(path, code=False, progress=lambda text, done: None)
    listed = (folder / "modules.json").is_file()
    return kind_of(read_config(folder), sentence_transformers=listed)


def check_tokenizer_files(folder: Path) -> None:
    """Raises ``EngineError`` where a folder has nothing that could be a tokenizer."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise EngineError(f"{folder} has no tokenizer (no tokenizer.json or tokenizer.model).")


def _downloaded(name: str, code: bool, progress: Progress) -> Path:
    """A snapshot of a repository: the weights as safetensors where there are any."""
    progress(f"looking for {name} on the hub", 0.0)
    small = (*_SMALL_FILES, "*.py") if code else _SMALL_FILES
    folder = _fetch(name, (*small, "*.safetensors"), progress)
    if not any(folder.glob("*.safetensors")):
        folder = _fetch(name, (*small, "*.bin", "*.pt"), progress)
    return folder


def _fetch(name: str, patterns: Sequence[str], progress: Progress | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    from dev_opsgpt.engines.hf.download import bar_class

    try:
        found = snapshot_download(
            name, allow_patterns=list(patterns), tqdm_class=bar_class(name, progress)
        )
    except GatedRepoError:
        why = "its owner wants you to agree to something first; do so, and set HF_TOKEN"
    except RepositoryNotFoundError:
        why = "the hub has no such model, or it is private (then set HF_TOKEN)"
    except LocalEntryNotFoundError:
        why = "the hub cannot be reached and the model was not downloaded before"
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
    else:
        return Path(found)
    raise EngineError(
        f"The model {name} is no folder here, and could not be downloaded: {why}."
    ) from None


__all__ = [
    "Progress",
    "check_tokenizer_files",
    "folder_of",
    "kind_of_model",
    "read_config",
    "read_json",
]
