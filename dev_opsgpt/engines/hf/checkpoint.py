"""The weights of a model as they lie on disk: which tensors in which files, read one by one."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dev_opsgpt.engines.hf.safetensors_header import TensorHead, read_heads
from dev_opsgpt.engines.hf.source import read_json
from dev_opsgpt.worker.engine import EngineError

# PyTorch's types under safetensors' names for them.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PICKLED = (".bin", ".pt", ".pth")


class Store(Protocol):
    """One file of tensors."""

    heads: dict[str, TensorHead]

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        ...


class Checkpoint:
    """All tensors of a model by name. What is read is not kept."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._stores: dict[str, Store] = {}
        for file in files:
            store: Store = _Pickled(file) if file.suffix in _PICKLED else _Safetensors(file)
            self._stores |= dict.fromkeys(store.heads, store)
        self.heads = {name: store.heads[name] for name, store in self._stores.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU; from any thread. Raises ``EngineError``."""
        try:
            return self._stores[name].read(name)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise EngineError(f"The tensor {name} cannot be read: {_line(error)}") from None


class Lazy:
    """Stands for a tensor in the state dict that is given to ``from_pretrained``, which asks for
    its content, as ``lazy[...]``, at the moment that it puts it into the model."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make

    def __getitem__(self, _: Any) -> Tensor:
        return self._make()


def find_files(folder: Path, named: str | None = None) -> list[Path]:
    """The files with a model's weights: ``named`` (a path, or a file or folder within the model's)
    where given, else as transformers finds them, else any. Raises ``EngineError``."""
    if named is not None:
        return _named(folder, named)
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            return _sharded(folder / index)
    for pattern in ("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.pt", "*.bin"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise EngineError(f"{folder} has no weights (no .safetensors, .bin or .pt file).")


def _named(folder: Path, named: str) -> list[Path]:
    for path in (folder / named, Path(named).expanduser()):
        if path.is_file():
            return _sharded(path) if path.suffix == ".json" else [path]
        if path.is_dir():
            return find_files(path)
    raise EngineError(f"There is no checkpoint {named}, neither in {folder} nor as a path.")


def _sharded(index: Path) -> list[Path]:
    content = read_json(index) or {}
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise EngineError(f"{index} is damaged: it has no weight_map.")
    files = sorted({index.parent / str(name) for name in places.values()})
    for file in files:
        if not file.is_file():
            raise EngineError(f"{index.parent} is not whole: {file.name} is missing.")
    return files


def check_index(folder: Path, checkpoint: Checkpoint) -> None:
    """Raises ``EngineError`` for tensors that the index promises and the files do not have."""
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        places = (read_json(folder / name) or {}).get("weight_map")
        if isinstance(places, dict) and {folder / f for f in places.values()} == set(
            checkpoint.files
        ):
            missing = [tensor for tensor in places if tensor not in checkpoint.heads]
            raise_faults(folder, [f"{tensor} is not in {places[tensor]}" for tensor in missing])


def raise_faults(where: Path, found: Sequence[str]) -> None:
    """Raises ``EngineError`` with the first few faults in one line, if there are any."""
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise EngineError(f"{where} is damaged: {'; '.join(found[:4])}{more}.")


class _Safetensors:
    """A safetensors file. It is mapped into memory when something of it is read: before, it may
    turn out to be larger than the memory there is, which a system may refuse to map."""

    def __init__(self, path: Path) -> None:
        self.heads = read_heads(path)
        self._path = path
        self._opening = Lock()
        self._file: Any = None

    def read(self, name: str) -> Tensor:
        with self._opening:
            if self._file is None:
                self._file = self._opened()
        tensor: Tensor = self._file.get_slice(name)[...]
        return tensor

    def _opened(self) -> Any:
        try:
            return safe_open(str(self._path), framework="pt", device="cpu")
        except (SafetensorError, RuntimeError, OSError) as error:
            raise EngineError(f"{self._path} cannot be opened: {_line(error)}") from None


class _Pickled:
    """A file that ``torch.save`` wrote. It is read as data: what would run code is refused."""

    def __init__(self, path: Path) -> None:
        tensors = self._load(path)
        # Some are wrapped once more.
        if isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
            tensors = tensors["model"]
        if not isinstance(tensors, dict):
            raise EngineError(f"{path} does not hold a state dict.")
        self._tensors = {str(k): v for k, v in tensors.items() if isinstance(v, Tensor)}
        self.heads = {
            name: TensorHead(_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape))
            for name, t in self._tensors.items()
        }

    def read(self, name: str) -> Tensor:
        return self._tensors[name]

    @staticmethod
    def _load(path: Path) -> Any:
        """The content; of a file in today's format only what is read later takes memory."""
        try:
            with path.open("rb") as file:
                mapped = file.read(2) == b"PK"
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError:
            raise EngineError(
                f"{path} is damaged, or holds more than tensors, which would run as code; "
                "save it as safetensors."
            ) from None
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise EngineError(f"{path} is damaged or truncated: {_line(error)}") from None


def _line(error: Exception) -> str:
    """An error of a library in one line."""
    return " ".join(str(error).split())[:200]
