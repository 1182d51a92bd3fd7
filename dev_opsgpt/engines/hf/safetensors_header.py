"""What the head of a safetensors file says, and whether the file is as long as that. No torch.

The format: eight bytes with the length of a JSON object, lowest first, the object (name -> dtype,
shape, begin and end of the data), the data. https://huggingface.co/docs/safetensors
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev_opsgpt.worker.engine import EngineError

_LENGTH = 8
# Bytes of one element; types of less than a byte, which nothing here reads, are left out.
_SIZES: Mapping[str, int] = {
    **{"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4},
    **{"F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1},
}


@dataclass(frozen=True)
class TensorHead:
    """Type (as safetensors spells it) and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read_heads(path: Path) -> dict[str, TensorHead]:
    """The tensors of a file by name. Raises ``EngineError`` where the file is damaged, naming the
    tensor where only some are."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(_LENGTH), "little")
            if size < _LENGTH or length > size - _LENGTH:
                raise EngineError(
                    f"{path} is damaged: it ends within its head, after {size:,} bytes."
                )
            head = json.loads(file.read(length))
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise EngineError(f"{path} is damaged: its head is not JSON.") from None
    return _checked(path, head, size - _LENGTH - length)


def _checked(path: Path, head: object, data: int) -> dict[str, TensorHead]:
    heads: dict[str, TensorHead] = {}
    cut: list[str] = []
    try:
        assert isinstance(head, dict)  # noqa: S101 - told as damage below
        for name, entry in head.items():
            if name == "__metadata__":
                continue
            found = TensorHead(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            begin, end = entry["data_offsets"]
            size = _SIZES.get(found.dtype)
            if size is not None and end - begin != size * found.numel:
                raise EngineError(
                    f"{path} is damaged: {name} has {end - begin:,} bytes, which is not {found}."
                )
            if end > data:
                cut.append(name)
            heads[name] = found
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
        raise EngineError(f"{path} is damaged: its head does not describe tensors.") from None
    if cut:
        more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
        raise EngineError(f"{path} is truncated: {min(cut)}{more} should lie beyond its end.")
    return heads
