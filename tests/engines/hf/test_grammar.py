"""Grammars on their own: whatever is drawn of what they allow is JSON of the schema."""

import asyncio
import json
import random
from typing import Any

import pytest

from dev_opsgpt.engines.hf.grammar import GrammarConstraint, Grammars, _compiled
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.engines.hf.token_text import TokenTable, table_of
from dev_opsgpt.protocol.errors import InternalError, InvalidRequest, Unsupported

from .tiny import tiny_tokenizer
from .tokenizers import sentence_piece, words

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["x", "你", "🙂"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def grammars(tokenizer: Any, extra: int = 7) -> tuple[Grammars, TokenTable, int]:
    """With logits wider than the vocabulary, as many models have them."""
    table = table_of(tokenizer)
    width = len(tokenizer) + extra
    ends = frozenset([tokenizer.eos_token_id])
    return Grammars(LoadedModel(None, tokenizer, 99, ends, width, None), table), table, width  # type: ignore[arg-type]


def draw(constraint: GrammarConstraint, table: TokenTable, width: int, end: int, seed: int) -> str:
    dice = random.Random(seed)
    found = b""
    while not constraint.done:
        mask = constraint.mask()
        assert len(mask) == -(-width // 32)
        allowed = [id_ for id_ in range(width) if int(mask[id_ // 32]) >> (id_ % 32) & 1]
        assert all(id_ == end or table.bytes_of(id_) for id_ in allowed)
        token = dice.choice(allowed)
        if token == end:
            break
        constraint.accept(token)
        found += table.bytes_of(token)
    return found.decode()


@pytest.mark.parametrize("make", [tiny_tokenizer, sentence_piece])
async def test_what_is_allowed_is_json(make: Any) -> None:
    tokenizer = make()
    some, table, width = grammars(tokenizer)
    for seed in range(20):
        constraint = await some.constraint(SCHEMA, "response_format")
        found = json.loads(draw(constraint, table, width, tokenizer.eos_token_id, seed))
        assert set(found) == {"name", "age", "tags"}
        assert len(found["name"]) <= 6
        assert 0 <= found["age"] <= 150
        assert set(found["tags"]) <= {"x", "你", "🙂"}


async def test_each_sequence_has_its_own() -> None:
    tokenizer = tiny_tokenizer()
    some, _, _ = grammars(tokenizer)
    one = await some.constraint({"const": "abc"}, "x")
    for token in tokenizer.encode('"abc"'):
        one.accept(token)
    assert one.done
    other = await some.constraint({"const": "abc"}, "x")
    assert not other.done
    with pytest.raises(InternalError):
        other.accept(tokenizer.encode("z")[0])


async def test_the_same_schema_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    some, _, _ = grammars(tiny_tokenizer())
    compiled = []

    def compiling(*given: Any) -> Any:
        compiled.append(given)
        return _compiled(*given)

    monkeypatch.setattr("dev_opsgpt.engines.hf.grammar._compiled", compiling)
    await asyncio.gather(*(some.constraint(SCHEMA, "x") for _ in range(8)))
    assert len(compiled) == 1
    for number in range(100):
        await some.constraint({"const": number}, "x")
    assert len(some._known) <= 64


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "string", "pattern": "("},
        {"type": "object", "unevaluatedProperties": False},
        {"type": "object", "properties": [1]},
        {"const": 1, "enum": 3},
    ],
)
async def test_schemas_that_cannot_be_followed(schema: dict[str, Any]) -> None:
    some, _, _ = grammars(tiny_tokenizer())
    for _ in range(2):
        with pytest.raises(InvalidRequest) as error:
            await some.constraint(schema, "response_format")
        assert error.value.param == "response_format"
        assert "\n" not in error.value.message


async def test_deep_and_large_schemas() -> None:
    some, _, _ = grammars(tiny_tokenizer())
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(50):
        deep = {"type": "array", "items": deep, "minItems": 1}
    await some.constraint(deep, "x")
    for _ in range(20_000):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest):
        await some.constraint(deep, "x")
    await some.constraint({"enum": [f"value {i}" for i in range(2000)]}, "x")


async def test_a_tokenizer_whose_tokens_are_no_bytes() -> None:
    some, _, _ = grammars(words())
    assert not some.usable
    with pytest.raises(Unsupported) as error:
        await some.constraint(SCHEMA, "response_format")
    assert error.value.param == "response_format"
