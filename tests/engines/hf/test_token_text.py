"""The text of tokens, one after the other, is the text of all of them decoded at once."""

import random
from typing import Any

import pytest

from dev_opsgpt.engines.hf.detokenizer import Detokenizer
from dev_opsgpt.engines.hf.sequence import Token
from dev_opsgpt.engines.hf.token_text import table_of

from .tiny import tiny_tokenizer
from .tokenizers import sentence_piece, words

TEXTS = ["Hello world!", " Hello  world", "你好🙂 é {\n}", "Hello 👩‍💻🏳️‍🌈!", "", " ", "  a"]
KINDS = {
    "byte-level": tiny_tokenizer,
    "sentencepiece": sentence_piece,
    "metaspace": lambda: sentence_piece(metaspace=True),
}


def text_of(tokenizer: Any, ids: list[int], **fields: Any) -> str:
    reader = Detokenizer(tokenizer, table_of(tokenizer), top=None, **fields)
    return "".join(reader.feed(Token(id_)).content for id_ in ids)


@pytest.fixture(params=list(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_that_of_all_at_once(tokenizer: Any, text: str) -> None:
    assert table_of(tokenizer).exact
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert text_of(tokenizer, ids) == tokenizer.decode(ids, skip_special_tokens=True)


def test_random_bytes_of_a_byte_level_tokenizer() -> None:
    tokenizer = tiny_tokenizer()
    dice = random.Random(1)
    for _ in range(200):
        ids = [dice.randrange(len(tokenizer)) for _ in range(20)]
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        found = text_of(tokenizer, ids)
        # What is left of a character at the end is not shown.
        assert whole.startswith(found)
        assert whole[len(found) :].strip("\ufffd") == ""


def test_a_text_that_goes_on_keeps_its_blank() -> None:
    tokenizer = sentence_piece()
    ids = tokenizer.convert_tokens_to_ids(["▁Hello", "▁world"])
    assert text_of(tokenizer, ids) == "Hello world"
    assert text_of(tokenizer, ids, continues=True) == " Hello world"


def test_a_tokenizer_that_is_no_table() -> None:
    tokenizer = words()
    assert not table_of(tokenizer).exact
    ids = tokenizer.convert_tokens_to_ids(["hello", ",", "world", "##ly", "</s>", "你", "you"])
    assert text_of(tokenizer, ids) == tokenizer.decode(ids, skip_special_tokens=True)
    reader = Detokenizer(tokenizer, table_of(tokenizer), top=0)
    deltas = [reader.feed(Token(id_, -1.0)) for id_ in ids]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert "".join(entry.token for entry in entries) == "".join(d.content for d in deltas)


def test_special_tokens_are_shown_where_they_are_marks() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("a<|im_start|>b")
    assert text_of(tokenizer, ids) == "ab"
    reader = Detokenizer(tokenizer, table_of(tokenizer, {"<|im_start|>"}), top=None)
    assert "".join(reader.feed(Token(id_)).content for id_ in ids) == "a<|im_start|>b"


def test_log_probabilities(tokenizer: Any) -> None:
    text = "Hello 你好🙂!"
    ids = tokenizer.encode(text, add_special_tokens=False)
    reader = Detokenizer(tokenizer, table_of(tokenizer), top=2)
    deltas = []
    for id_ in ids:
        top = [(id_, -0.1), (5, -2.0), (6, -3.0)]
        deltas.append(reader.feed(Token(id_, -0.1, top)))
        assert bool(deltas[-1].logprobs) == bool(deltas[-1].content)
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == text
    assert "".join(entry.token for entry in entries) == text
    for entry in entries:
        assert len(entry.top) == 2
        assert (entry.top[0].token, entry.top[0].bytes) == (entry.token, entry.bytes)


def test_half_a_character_has_no_entry() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("a🙂")
    reader = Detokenizer(tokenizer, table_of(tokenizer), top=0)
    deltas = [reader.feed(Token(id_, -1.0)) for id_ in ids[:-1]]
    assert [entry.token for delta in deltas for entry in delta.logprobs] == ["a"]
