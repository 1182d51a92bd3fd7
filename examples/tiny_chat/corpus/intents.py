"""The questions with ready answers: intents/*.txt.

    == name x3        a new intent, drawn three times as often as one without a number
    Q: / A: / B:      a way to ask, to answer, to answer briefly
    问：/ 答：/ 短：  the same in Chinese
    # ...             a comment

`[a|b]` in a text is a choice, and `\\n` is a line break.
"""

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tiny_chat.corpus.dialogue import Exchange, Voice, pick

FOLDER = Path(__file__).with_name("intents")
_FIELDS = {
    "Q: ": ("ask", "en"),
    "A: ": ("answer", "en"),
    "B: ": ("brief", "en"),
    "问：": ("ask", "zh"),
    "答：": ("answer", "zh"),
    "短：": ("brief", "zh"),
}


@dataclass
class Intent:
    """One thing a user may want; `texts` holds its phrases by (field, language)."""

    name: str
    weight: float = 1.0
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def serves(self, voice: Voice) -> bool:
        """Whether it can be asked and answered in that voice."""
        return ("ask", voice.ask) in self.texts and answer_field(voice) in self.texts


def answer_field(voice: Voice) -> tuple[str, str]:
    """Which of an intent's fields answers in that voice."""
    return ("brief" if voice.brief else "answer", voice.answer)


def parse(text: str) -> list[Intent]:
    """The intents of one file; ValueError names a line that is none of the known kinds."""
    intents: list[Intent] = []
    for line in text.split("\n"):
        if line.startswith("== "):
            name, _, weight = line[3:].partition(" x")
            intents.append(Intent(name, float(weight or 1)))
        elif line[:3] in _FIELDS:
            phrase = line[3:].replace("\\n", "\n")
            intents[-1].texts.setdefault(_FIELDS[line[:3]], []).append(phrase)
        elif line[:2] in _FIELDS:
            phrase = line[2:].replace("\\n", "\n")
            intents[-1].texts.setdefault(_FIELDS[line[:2]], []).append(phrase)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"not an intent's line: {line!r}")
    return intents


@cache
def all_intents() -> tuple[Intent, ...]:
    """Every intent, in the order of the files' names."""
    files = sorted(FOLDER.glob("*.txt"))
    return tuple(intent for path in files for intent in parse(path.read_text("utf-8")))


@cache
def intents_for(voice: Voice) -> tuple[list[Intent], list[float]]:
    """The intents that serve that voice, and their weights."""
    fitting = [intent for intent in all_intents() if intent.serves(voice)]
    return fitting, [intent.weight for intent in fitting]


def ready_answer(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A question from the files and its answer."""
    intents, weights = intents_for(voice)
    texts = rng.choices(intents, weights)[0].texts
    ask = reworded(pick(texts["ask", voice.ask], rng), rng, voice.ask)
    return [Exchange(ask, pick(texts[answer_field(voice)], rng))]


_OPENINGS = {
    "en": "[Hi, |Hello! |Hey, |Hello, |Please tell me: |One question: |OK. |So, |Hi! |Well, ]",
    "zh": "[你好，|请问，|请问|嗨，|那么，|我想问一下，|你好！]",
}
_ENDINGS = {
    "en": "[ Thanks!| Thank you.| Please help me.|  | |\n| :)| Please.|!]",
    "zh": "[谢谢。|谢谢！| |。|\n|！]",
}


def reworded(ask: str, rng: random.Random, language: str) -> str:
    """`ask` as people type it: now and then lower case, unpunctuated, with a slip or a greeting."""
    if rng.random() < 0.12:
        ask = ask.lower()
    if rng.random() < 0.12:
        ask = ask.rstrip(".?!。？！")
    if rng.random() < 0.05 and language == "en":
        ask = mistyped(ask, rng)
    if rng.random() < 0.10:
        opening = pick([_OPENINGS[language]], rng)
        follows = ask if opening[-2:] in ("! ", ". ", "！") else ask[:1].lower() + ask[1:]
        ask = opening + (ask if follows.startswith("i ") else follows)
    if rng.random() < 0.10:
        ask += pick([_ENDINGS[language]], rng)
    return ask or "?"


def mistyped(text: str, rng: random.Random) -> str:
    """`text` with two neighbouring letters swapped, or one left out."""
    places = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :]
