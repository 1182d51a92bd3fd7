"""Short stories and poems, put together from parts; they make the long answers."""

import random
import re
from pathlib import Path

from tiny_chat.corpus import story_parts as parts
from tiny_chat.corpus.dialogue import Exchange, Voice, by_language, pick
from tiny_chat.corpus.intents import reworded


def with_an(text: str) -> str:
    """`text` with "an" where a vowel follows."""
    return re.sub(r"\ba(?= [aeiou](?!nicorn))", "an", text)


def english_story(rng: random.Random, kind: str, name: str) -> str:
    """One story of some 80 to 200 words."""
    names = {"kind": kind, "name": name, "place": rng.choice(parts.PLACES)[0]}
    names |= {"lost": rng.choice(parts.LOST)[0], "helper": rng.choice(parts.HELPERS)[0]}
    pieces = [
        parts.BEGIN,
        parts.MORNING,
        parts.WONDER,
        parts.ROAD[:1],
        parts.ROAD[1:],
        parts.MEET,
        parts.FIND,
        parts.END[:2],
        parts.END[2:],
    ]
    return with_an(" ".join(pick(part, rng, **names) for part in pieces))


def chinese_story(rng: random.Random, kind: str, name: str) -> str:
    """One short Chinese story."""
    names = {"kind": kind, "name": name, "place": rng.choice(parts.PLACES)[1]}
    names |= {"lost": rng.choice(parts.LOST)[1], "helper": rng.choice(parts.HELPERS)[1]}
    pieces = [
        parts.BEGIN_ZH,
        parts.MIDDLE_ZH,
        parts.ROAD_ZH[:1],
        parts.ROAD_ZH[1:],
        parts.MEET_ZH,
        parts.END_ZH,
    ]
    return "".join(pick(part, rng, **names) for part in pieces)


def story(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A story, at times about a wished-for hero."""
    kind, name, zh_kind, zh_name = rng.choice(parts.HEROES)
    if voice == Voice() and rng.random() < 0.5:
        kind, name = rng.choice(parts.MORE_HEROES), rng.choice(parts.HERO_NAMES)
    if rng.random() < 0.55:
        ask = pick(by_language(voice.ask, parts.STORY_ASK, parts.STORY_ASK_ZH), rng)
    else:
        texts = by_language(voice.ask, parts.STORY_ASK_ABOUT, parts.STORY_ASK_ABOUT_ZH)
        ask = with_an(pick(texts, rng, kind=zh_kind if voice.ask == "zh" else kind))
    if voice.answer == "zh":
        answer = chinese_story(rng, zh_kind, zh_name)
    else:
        answer = english_story(rng, kind, name)
    return [Exchange(reworded(ask, rng, voice.ask), answer)]


def poem_lines(language: str) -> tuple[dict[str, list[str]], list[str]]:
    """Couplets by subject and couplets for any subject, from poems_*.txt."""
    own: dict[str, list[str]] = {}
    common: list[str] = []
    target = common
    for line in Path(__file__).with_name(f"poems_{language}.txt").read_text("utf-8").splitlines():
        if line.startswith("== "):
            target = common if line == "== *" else own.setdefault(line[3:], [])
        elif line.strip() and not line.startswith("#"):
            target.append(line.replace(" / ", "\n"))
    return own, common


POEMS = {language: poem_lines(language) for language in ("en", "zh")}


def poem(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A poem about a subject with couplets of its own, or about any other."""
    own, common = POEMS[voice.answer]
    if voice == Voice() and rng.random() < 0.3:
        subject = asked = rng.choice(parts.MORE_SUBJECTS)
        couplets = rng.sample([c for c in common if "{x}" in c], k=rng.randint(1, 3))
        couplets += rng.sample([c for c in common if "{x}" not in c], k=rng.randint(2, 3))
    else:
        index = rng.randrange(len(own))
        subject, asked = list(own)[index], list(POEMS[voice.ask][0])[index]
        couplets = rng.sample(own[subject], k=len(own[subject]))
        couplets += rng.sample(common, k=rng.randint(1, 3))
    lines = "\n".join(couplets).replace("{x}", subject).split("\n")
    answer = "\n".join(line[0].upper() + line[1:] for line in lines)
    return [Exchange(reworded(poem_question(rng, voice, asked), rng, voice.ask), answer)]


def poem_question(rng: random.Random, voice: Voice, subject: str) -> str:
    """A wish for a poem, with the subject named in most."""
    if rng.random() < 0.15 and subject not in parts.MORE_SUBJECTS:
        return pick(by_language(voice.ask, parts.POEM_ASK_ANY, parts.POEM_ASK_ANY_ZH), rng)
    english = parts.POEM_ASK if rng.random() < 0.85 else parts.POEM_ASK_SHORT
    return pick(by_language(voice.ask, english, parts.POEM_ASK_ZH), rng, x=subject)
