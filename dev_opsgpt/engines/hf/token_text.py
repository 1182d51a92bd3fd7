"""Token ids -> text: the bytes that each token stands for, and whole characters while they come.

Most tokenizers are a table of bytes: byte-level BPE and tiktoken's are, and so are SentencePiece's
but for one blank at the beginning of a text. For what is neither, the tokenizer itself decodes the
last few tokens, anew with each one.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import msgspec

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_SPACE = "▁"
_LOST = "\ufffd"


class TokenTable(msgspec.Struct, frozen=True):
    """The bytes of each token, by its id; ``exact`` is False where they are a guess, because the
    tokenizer is no table. ``special`` are the ids that stand for no text (of these only the ones
    ``shown`` have any); ``strips`` says that a text loses the blank it begins with."""

    pieces: Sequence[bytes]
    special: Set[int]
    hidden: Set[int]
    strips: bool = False
    exact: bool = True

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; a special one stands for its name."""
        return self.pieces[token] if 0 <= token < len(self.pieces) else b""


def table_of(tokenizer: Any, shown: Set[str] = frozenset()) -> TokenTable:
    """The table of a transformers tokenizer. ``shown`` are the special tokens that are text."""
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.update(tokenizer.all_special_ids)
    hidden = {id_ for id_ in special if str(tokenizer.convert_ids_to_tokens(id_)) not in shown}
    decoders = list(_decoders(tokenizer))
    kinds = {decoder["type"] for decoder in decoders}
    if any(isinstance(name, bytes) for name in names):  # tiktoken's, as Qwen's first was
        raw = [name if isinstance(name, bytes) else str(name).encode() for name in names]
        return TokenTable(raw, special, hidden)
    if kinds == {"ByteLevel"}:
        alphabet = _byte_alphabet()
        return TokenTable([_of_alphabet(name, alphabet) for name in names], special, hidden)
    if kinds & {"Replace", "Metaspace"} and kinds <= _SENTENCE_PIECE:
        strips = any(_strips(decoder) for decoder in decoders)
        pieces = [_of_sentence_piece(name, "ByteFallback" in kinds) for name in names]
        return TokenTable(pieces, special, hidden, strips)
    if not decoders and any(str(name).startswith(_SPACE) for name in names):
        pieces = [_of_sentence_piece(name, True) for name in names]
        return TokenTable(pieces, special, hidden, strips=True)
    guessed = [tokenizer.decode([id_]).encode() for id_ in range(len(names))]
    return TokenTable(guessed, special, hidden, exact=False)


class Text(Protocol):
    """The text of one sequence, token by token."""

    def feed(self, token: int) -> tuple[str, bytes]:
        """The characters that a token completes, and its own bytes."""
        ...


class TableText:
    """Text by the table. What is left of a character at the end is never shown.

    ``continues`` says that the text goes on after another one, which keeps the blank before it.
    """

    def __init__(self, table: TokenTable, *, continues: bool = False) -> None:
        self._table = table
        self._strip = table.strips and not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> tuple[str, bytes]:
        """The characters that a token completes, and its own bytes."""
        if token in self._table.hidden:
            return "", b""
        data = self._table.bytes_of(token)
        if self._strip and data:
            data, self._strip = data.removeprefix(b" "), False
        return self._decoder.decode(data), data


class DecodedText:
    """Text by the tokenizer's own decoder, of which nothing is known: of the tokens since the one
    before the last whole character, what was not there without the new one."""

    def __init__(self, tokenizer: Any, table: TokenTable) -> None:
        self._tokenizer = tokenizer
        self._table = table
        self._ids: list[int] = []
        self._start = self._read = 0

    def feed(self, token: int) -> tuple[str, bytes]:
        """The characters that a token completes, and their bytes."""
        if token in self._table.hidden:
            return "", b""
        self._ids.append(token)
        before = self._tokenizer.decode(self._ids[self._start : self._read])
        after = self._tokenizer.decode(self._ids[self._start :])
        if len(after) <= len(before) or after.endswith(_LOST):
            return "", b""
        self._start, self._read = self._read, len(self._ids)
        text = after[len(before) :]
        return text, text.encode()


_SENTENCE_PIECE = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}


def _decoders(tokenizer: Any) -> Iterable[Mapping[str, Any]]:
    """The steps of a tokenizer's decoder, as ``tokenizers`` writes them down."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found = json.loads(backend.to_str())["decoder"] if backend is not None else None
    if found is None:
        return []
    steps: list[Mapping[str, Any]] = found["decoders"] if found["type"] == "Sequence" else [found]
    return steps


def _strips(decoder: Mapping[str, Any]) -> bool:
    if decoder["type"] == "Metaspace":
        return bool(decoder.get("prepend_scheme") != "never")
    return bool(decoder["type"] == "Strip" and decoder.get("start", 0) > 0)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: those that can be seen stand for themselves, the others are
    numbered from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in seen]
    letters = {chr(byte): byte for byte in seen}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


def _of_alphabet(name: str | None, alphabet: Mapping[str, int]) -> bytes:
    if name is None:
        return b""
    try:
        return bytes(alphabet[letter] for letter in name)
    except KeyError:
        return name.encode()  # an added token, which is written as it is


def _of_sentence_piece(name: str | None, byte_tokens: bool) -> bytes:
    if name is None:
        return b""
    byte = _BYTE.match(name) if byte_tokens else None
    return bytes([int(byte[1], 16)]) if byte else name.replace(_SPACE, " ").encode()
