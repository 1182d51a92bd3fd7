"""An estimate of token counts, for providers that do not tell them. Pure.

Providers count with tokenizers of their own. Byte-pair vocabularies make about one token of four
letters of a European language and one of each Chinese, Japanese or Korean character, so that is
what is counted here; other scripts lie between, at two characters a token. A message costs four
tokens more, for its role and its marks.
"""

from collections.abc import Iterable

MESSAGE_OVERHEAD = 4
_IDEOGRAPHS_FROM = 0x2E80


def estimate(text: str) -> int:
    """About how many tokens ``text`` has; 0 only for the empty text."""
    latin = sum(character < "\u0250" for character in text)
    wide = sum(ord(character) >= _IDEOGRAPHS_FROM for character in text)
    others = len(text) - latin - wide
    return -(-(latin + 2 * others + 4 * wide) // 4)


def estimate_messages(texts: Iterable[str]) -> int:
    """About how many tokens messages with these texts have together."""
    return sum(estimate(text) + MESSAGE_OVERHEAD for text in texts)
