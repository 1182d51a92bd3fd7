"""What a GGUF file says about itself, read before llama.cpp loads it.

llama.cpp reports every failure to load as the same one line; most causes can be seen here.
Source: ggml's GGUF specification, versions 2 and 3.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

from dev_opsgpt.worker.engine import EngineError

_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
# llama.cpp's number of the pooling that gives one score.
_RANK = 4
# Families whose scores llama.cpp brings to probabilities itself (a softmax over "yes" and "no").
_PROBABILITIES = ("qwen3", "qwen3vl")
# Values of longer arrays (the vocabulary) are not kept, only counted.
_KEPT = 1024
# Type of a tensor -> (elements of a block, bytes of a block), for the common types.
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    30: (1, 2),
}


class Gguf:
    """A GGUF file's metadata. ``what`` is what errors call it.

    Raises ``EngineError`` for a file that is missing, is not a GGUF, or ends too early.
    """

    def __init__(self, path: Path, what: str = "model") -> None:
        self.path = path
        self._called = f"The {what} file {path}"
        self.metadata: dict[str, Any] = {}
        if not path.is_file():
            kind = "is a folder, not a GGUF file" if path.is_dir() else "does not exist"
            raise EngineError(f"{self._called} {kind}.")
        self.size = path.stat().st_size
        try:
            self._read()
        except (struct.error, ValueError, OverflowError):
            raise EngineError(f"{self._called} is truncated or damaged.") from None
        except OSError as error:
            raise EngineError(f"{self._called} cannot be read: {error.strerror}.") from None

    def _read(self) -> None:
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise EngineError(f"{self._called} is not a GGUF file.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                reader = _Reader(data, 4)
                version = reader.scalar("I")
                if version not in (2, 3):
                    raise EngineError(
                        f"{self._called} has GGUF version {version}; 2 and 3 are read."
                    )
                tensors, pairs = reader.scalar("Q"), reader.scalar("Q")
                for _ in range(pairs):
                    key = reader.string()
                    self.metadata[key] = reader.value(reader.scalar("I"))
                end = reader.tensors_end(tensors, self.metadata.get("general.alignment", 32))
        if end > self.size:
            raise EngineError(f"{self._called} is truncated: it has {self.size} bytes of {end}.")

    @property
    def architecture(self) -> str:
        """The family of the model, such as ``llama``."""
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """The value of a key of the model's architecture; None where the file has none."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @property
    def reranks(self) -> bool:
        """Whether it scores pairs of texts, and does nothing else."""
        return bool(self.of_architecture("pooling_type") == _RANK)

    @property
    def scores_are_probabilities(self) -> bool:
        """Whether the scores of a model that reranks lie between 0 and 1 as they come."""
        return self.architecture in _PROBABILITIES

    @property
    def generates(self) -> bool:
        """Whether it writes text: not where its tokens see those behind them too."""
        return self.of_architecture("attention.causal") is not False and not self.reranks

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, range | list) else 0

    @property
    def trained_context(self) -> int:
        """The context the model was trained for, in tokens; 0 where the file does not say."""
        return int(self.of_architecture("context_length") or 0)

    @property
    def embedding_size(self) -> int:
        """The length of the vectors inside the model."""
        return int(self.of_architecture("embedding_length") or 0)

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of the key-value cache (16 bit) for so many tokens; 0 where it cannot be told,
        as for models with a sliding window or without attention."""
        layers = self.of_architecture("block_count")
        heads = self.of_architecture("attention.head_count")
        if not isinstance(layers, int) or not isinstance(heads, int) or not heads:
            return 0
        if self.of_architecture("attention.sliding_window"):
            return 0
        kept = self.of_architecture("attention.head_count_kv") or heads
        total = sum(kept) if isinstance(kept, list) else layers * kept
        size = self.embedding_size // heads
        keys = self.of_architecture("attention.key_length") or size
        values = self.of_architecture("attention.value_length") or size
        return int(tokens * total * (keys + values) * 2)


class _Reader:
    """Reads GGUF's values one after the other."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self._at = at

    def scalar(self, form: str) -> Any:
        unpacker = struct.Struct(f"<{form}")
        (found,) = unpacker.unpack_from(self._data, self._at)
        self._at += unpacker.size
        return found

    def string(self) -> str:
        start = self._skip_string()
        return self._data[start : self._at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(self._form(kind))
        item, count = self.scalar("I"), self.scalar("Q")
        if count <= _KEPT:
            return [self.value(item) for _ in range(count)]
        if item == _STRING:
            for _ in range(count):
                self._skip_string()
        else:
            self._at += count * struct.calcsize(f"<{self._form(item)}")
        return range(count)

    def tensors_end(self, count: int, alignment: int) -> int:
        """Where the data of the last of ``count`` tensors ends, by their descriptions."""
        end = 0
        for _ in range(count):
            self._skip_string()
            dimensions = [self.scalar("Q") for _ in range(self.scalar("I"))]
            elements, size = _BLOCKS.get(self.scalar("I"), (1, 0))
            number = 1
            for dimension in dimensions:
                number *= dimension
            end = max(end, self.scalar("Q") + number // elements * size)
        return -(-self._at // alignment) * alignment + end

    def _skip_string(self) -> int:
        length = self.scalar("Q")
        start = self._at
        if start + length > len(self._data):
            raise ValueError("a string reaches past the end of the file")
        self._at = start + length
        return start

    def _form(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"no such type: {kind}")
        return _SCALARS[kind]
