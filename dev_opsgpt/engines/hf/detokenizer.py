"""The tokens of one sequence -> the deltas of its text, with log probabilities where asked for."""

from typing import Any

from dev_opsgpt.engines.hf.sequence import Token
from dev_opsgpt.engines.hf.token_text import DecodedText, TableText, Text, TokenTable
from dev_opsgpt.worker.engine import Delta, TokenLogprob


class Detokenizer:
    """Gives whole characters only, and the entries of the tokens that they are made of.

    ``TokenLogprob.token`` is the characters that a token completes: joined, they are the text.
    ``TokenLogprob.bytes`` are the token's own, joined the same text in UTF-8. Tokens that never
    become a whole character, and special ones, have no entry.
    """

    def __init__(
        self, tokenizer: Any, table: TokenTable, *, top: int | None, continues: bool = False
    ) -> None:
        self._table = table
        self._top = top
        self._text: Text = (
            TableText(table, continues=continues) if table.exact else DecodedText(tokenizer, table)
        )
        self._held: list[TokenLogprob] = []

    def feed(self, token: Token) -> Delta:
        """What a token adds."""
        if token.id is None:
            return Delta()
        text, data = self._text.feed(token.id)
        if self._top is not None and token.logprob is not None and (data or not self._table.exact):
            self._held.append(self._entry(token, token.id, text, data))
        if not text:
            return Delta()
        found, self._held = self._held, []
        return Delta(content=text, logprobs=found)

    def _entry(self, token: Token, id_: int, text: str, data: bytes) -> TokenLogprob:
        top = []
        for other, logprob in token.top[: self._top]:
            raw = data if other == id_ else self._table.bytes_of(other)
            name = text if other == id_ else raw.decode(errors="replace")
            top.append(TokenLogprob(name, logprob, list(raw)))
        return TokenLogprob(text, token.logprob or 0.0, list(data), top)
