"""Tokenizers of the kinds that there are, each made in a moment."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_SPECIAL = ["<unk>", "<s>", "</s>"]
_WORDS = [
    "▁Hello",
    "▁world",
    "Hello",
    "▁",
    "▁▁",
    "H",
    "e",
    "l",
    "o",
    "w",
    "r",
    "d",
    "!",
    "你",
    "▁{",
]


def sentence_piece(*, metaspace: bool = False) -> PreTrainedTokenizerFast:
    """SentencePiece with byte fallback, decoded as Llama 2's, or by a ``Metaspace`` as others."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*_SPECIAL, *bytes_, *_WORDS]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        steps = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return _fast(tokenizer)


def words() -> PreTrainedTokenizerFast:
    """Whole words, with a decoder of its own: no table of bytes says what its text is."""
    tokens = [*_SPECIAL, "hello", "world", "##ly", ",", "you", "你"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
