"""The tokenizer: byte-level BPE with GPT-2's split, so that llama.cpp cuts text alike."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tiny_chat.chat_format import CONTROL_TOKENS, TOOL_MARKS


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens from `texts`; all 256 bytes are in, so any UTF-8 is representable.

    The control tokens have the first ids, the tool marks the next ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in CONTROL_TOKENS]
    marks = [AddedToken(text, special=False, normalized=False) for text in TOOL_MARKS]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=specials + marks,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=2,
            show_progress=False,
        ),
    )
    return with_plain_marks(tokenizer)


def with_plain_marks(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with the tool marks as ordinary text: decoding keeps them."""
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in CONTROL_TOKENS
    return Tokenizer.from_str(json.dumps(state))


def portable_json(tokenizer: Tokenizer) -> str:
    """tokenizer.json in the form every release since tokenizers 0.15 reads.

    Since 0.20 merges are written as pairs, which older readers refuse; strings all read.
    """
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    model = state["model"]
    model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return json.dumps(state, ensure_ascii=False, indent=0) + "\n"


def token_id(tokenizer: Tokenizer, text: str) -> int:
    """The id of a token that must exist; KeyError where it does not."""
    index: int | None = tokenizer.token_to_id(text)
    if index is None:
        raise KeyError(text)
    return index
