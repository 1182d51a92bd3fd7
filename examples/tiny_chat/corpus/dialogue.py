"""The pieces of the corpus: exchanges, dialogues, and phrases with choices in them."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")


class Exchange(NamedTuple):
    """One question and its answer."""

    ask: str
    answer: str


class Voice(NamedTuple):
    """The languages of question and answer ("en" or "zh"), and whether answers are short."""

    ask: str = "en"
    answer: str = "en"
    brief: bool = False


# One topic of the corpus: makes the exchanges of one stretch of conversation.
Skill = Callable[[random.Random, Voice], list[Exchange]]


@dataclass(frozen=True)
class Dialogue:
    """One training example: messages as the OpenAI API has them, and the tools on offer."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


def expand(text: str, rng: random.Random) -> str:
    """`text` with one option taken in every `[a|b]`; brackets without a bar stay."""
    while match := _CHOICE.search(text):
        choice = rng.choice(match.group(1).split("|"))
        text = text[: match.start()] + choice + text[match.end() :]
    return text


def pick(texts: Sequence[str], rng: random.Random, **names: object) -> str:
    """One of `texts`, expanded, its `{name}` fields filled in."""
    text = expand(rng.choice(texts), rng)
    for name, value in names.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def by_language(language: str, en: Sequence[str], zh: Sequence[str]) -> Sequence[str]:
    """The texts of that language."""
    return zh if language == "zh" else en


def message(role: str, content: str) -> dict[str, Any]:
    """A plain message."""
    return {"role": role, "content": content}


def turns(exchanges: Iterable[Exchange]) -> list[dict[str, Any]]:
    """Exchanges as messages; an optional last sentence that was not taken leaves no blank."""
    pairs = [(message("user", e.ask), message("assistant", e.answer.strip())) for e in exchanges]
    return [turn for pair in pairs for turn in pair]
