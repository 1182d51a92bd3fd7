"""Answers held to a JSON schema or to calls of tools: llguidance's grammars, compiled once, one
matcher a sequence."""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from dev_opsgpt.engines.call_grammar import HeldCalls, call_grammar, literal
from dev_opsgpt.engines.forced_tools import Places, call_schema
from dev_opsgpt.engines.hf.after_reasoning import AfterReasoning
from dev_opsgpt.engines.hf.prompt import Prompt
from dev_opsgpt.engines.hf.sequence import Constraint, LoadedModel
from dev_opsgpt.engines.hf.token_text import TokenTable
from dev_opsgpt.engines.json_or_calls import JsonOrCalls
from dev_opsgpt.protocol.errors import InternalError, InvalidRequest, Unsupported

log = logging.getLogger(__name__)

_REMEMBERED = 64
_LONGEST_REASON = 300
_ALONE = "\x02"
# A small model that may choose its blanks can be caught in an endless run of them.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class GrammarConstraint:
    """A matcher that belongs to one sequence. See ``Constraint``."""

    def __init__(self, matcher: LLMatcher, words: int, vocabulary: int) -> None:
        self._matcher = matcher
        self._bits = allocate_token_bitmask(1, vocabulary)
        self._words = words

    def mask(self) -> NDArray[np.int32]:
        """The tokens allowed next. Raises ``InternalError`` where the grammar has got too complex
        to follow."""
        fill_next_token_bitmask(self._matcher, self._bits)
        mask: NDArray[np.int32] = self._bits[0, : self._words]
        if self._matcher.is_error() or not mask.any():
            raise InternalError("The grammar of the answer became too complex to follow.")
        return mask

    def accept(self, token: int) -> None:
        """Goes on by a token. Raises ``InternalError`` for one that is not allowed."""
        if not self._matcher.consume_token(token):
            raise InternalError("The model left the grammar of the answer.")

    @property
    def done(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()


class Grammars:
    """Compiles JSON schemas for one model, in a thread, and remembers the last few of them."""

    def __init__(self, loaded: LoadedModel, table: TokenTable) -> None:
        self._table = table
        self._tokenizer = _tokenizer(loaded, table)
        self.usable = self._tokenizer is not None
        """Whether answers of this model can be held to a grammar."""
        self._words = -(-loaded.vocabulary // 32)
        self._known: OrderedDict[str, LLMatcher | str] = OrderedDict()
        shown = table.special - table.hidden
        marks = {table.bytes_of(id_).decode(errors="replace"): id_ for id_ in shown}
        self._special = {mark: id_ for mark, id_ in marks.items() if mark}
        self._literal = partial(literal, special=self._special)
        self._compiling = asyncio.Lock()

    async def of(self, prompt: Prompt) -> Constraint | None:
        """The constraint of a prompt's answer, if it has one. Raises ``InvalidRequest`` at the
        field, for forced calls at the tool whose parameters cannot be followed."""
        held = prompt.held
        if held is None:
            return None
        if isinstance(held, JsonOrCalls):
            return await self.choice(held)
        try:
            if not isinstance(held, HeldCalls):
                return await self.constraint(held, prompt.param)
            if held.trigger and not self.usable:
                return None  # nothing was asked for that must be
            calls = await self.calls(held, prompt.param)
            if not held.trigger:
                return calls
            return AfterReasoning(calls, self._table, prompt.think, thinking=prompt.thinking)
        except InvalidRequest:
            await self._blame(prompt.tools)
            raise

    async def constraint(self, schema: dict[str, Any], param: str) -> GrammarConstraint:
        """A constraint for one sequence. Raises ``InvalidRequest`` at ``param`` for a schema that
        cannot be followed, ``Unsupported`` where the model cannot follow any."""
        return await self._constraint(
            lambda: json.dumps({**schema, "x-guidance": _SPACING}),
            LLMatcher.grammar_from_json_schema,
            param,
        )

    async def calls(self, calls: HeldCalls, param: str) -> GrammarConstraint:
        """A constraint for one sequence; raises like ``constraint``."""
        return await self._constraint(
            lambda: call_grammar(calls, self._literal, _SPACING),
            LLMatcher.grammar_from_lark,
            param,
        )

    async def choice(self, choice: JsonOrCalls) -> GrammarConstraint:
        """A constraint for one sequence. Raises ``InvalidRequest`` at ``response_format`` or at the
        tool whose parameters cannot be followed, ``Unsupported`` as ``constraint`` does."""
        param = "response_format"
        try:
            return await self._constraint(
                lambda: choice.lark(self._special, _SPACING), LLMatcher.grammar_from_lark, param
            )
        except InvalidRequest:
            await self.constraint(choice.schema, param)
            await self._blame(choice.tools)
            raise

    async def _blame(self, tools: Places) -> None:
        """Raises ``InvalidRequest`` at the first tool whose parameters cannot be followed."""
        for pair in tools:
            await self.constraint(call_schema([pair]), f"{pair[1]}.function.parameters")

    async def _constraint(
        self, write: Callable[[], str], read: Callable[[str], str], param: str
    ) -> GrammarConstraint:
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise Unsupported("This model's answers cannot be held to a form.", param=param)
        try:
            key = write()
        except RecursionError:
            raise _refused(param, ": it is nested too deeply") from None
        if key not in self._known:
            async with self._compiling:
                if key not in self._known:
                    self._remember(key, await asyncio.to_thread(_compiled, tokenizer, key, read))
        found = self._known[key]
        self._known.move_to_end(key)
        if isinstance(found, str):
            raise _refused(param, found)
        return GrammarConstraint(found.deep_copy(), self._words, tokenizer.vocab_size)

    def _remember(self, key: str, found: LLMatcher | str) -> None:
        self._known[key] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _compiled(tokenizer: LLTokenizer, text: str, read: Callable[[str], str]) -> LLMatcher | str:
    """A matcher at its beginning, or why there can be none."""
    try:
        grammar = read(text)
    except ValueError as error:
        return _reason(str(error))
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    return _reason(matcher.get_error()) if matcher.is_error() else matcher


def _reason(error: str) -> str:
    first = error.strip().splitlines()[0] if error.strip() else ""
    return f": {first[:_LONGEST_REASON]}" if first else ""


def _refused(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The JSON schema in '{param}' cannot be followed{reason}", param=param)


class _Tokens:
    """A tokenizer as llguidance wants it: bytes of tokens, and a text that is certain as tokens.

    Those must stand for the very bytes of the text, which SentencePiece's do not at the beginning
    of one, so a text is encoded behind a letter that joins with nothing.
    """

    def __init__(self, loaded: LoadedModel, table: TokenTable) -> None:
        self._loaded = loaded
        ends = sorted(loaded.end_tokens)
        width = max(loaded.vocabulary, len(table.pieces))
        self.tokens = [table.bytes_of(token) for token in range(width)]
        self.special_token_ids = sorted({*table.special, *ends, *range(len(table.pieces), width)})
        self.eos_token_id = ends[0] if ends else 0
        self.bos_token_id = loaded.tokenizer.bos_token_id
        ordinary = set(range(width)) - set(self.special_token_ids)
        self._by_bytes = {self.tokens[id_]: id_ for id_ in sorted(ordinary, reverse=True)}
        self._longest = max(map(len, self._by_bytes), default=1)

    def __call__(self, text: str) -> list[int]:
        data = text.encode()
        for before in ("", _ALONE):
            ids: list[int] = self._loaded.tokenizer.encode(before + text, add_special_tokens=False)
            for start in range(min(len(ids), 4) if before else 1):
                if b"".join(self.tokens[id_] for id_ in ids[start:]) == data:
                    return ids[start:]
        return self._greedy(data)

    def _greedy(self, data: bytes) -> list[int]:
        """The longest token at each place; the end where there is none."""
        found: list[int] = []
        at = 0
        while at < len(data):
            sizes = range(min(self._longest, len(data) - at), 0, -1)
            size = next((n for n in sizes if data[at : at + n] in self._by_bytes), 0)
            if not size:
                break
            found.append(self._by_bytes[data[at : at + size]])
            at += size
        return found


def _tokenizer(loaded: LoadedModel, table: TokenTable) -> LLTokenizer | None:
    """None for a tokenizer whose tokens do not stand for bytes, or none that llguidance takes."""
    if not table.exact:
        return None
    ends = sorted(loaded.end_tokens)
    try:
        return LLTokenizer(TokenizerWrapper(_Tokens(loaded, table)), eos_token=ends or None)
    except Exception:
        log.warning("the model's answers cannot be held to JSON", exc_info=True)
        return None
