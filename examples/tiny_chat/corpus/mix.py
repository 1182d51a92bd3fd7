# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""How the parts are mixed: which topics, how long a conversation, under which system message."""

import random
from collections.abc import Iterator, Sequence

from tiny_chat.corpus.dialogue import (
    Dialogue,
    Exchange,
    Skill,
    Voice,
    by_language,
    message,
    pick,
    turns,
)
from tiny_chat.corpus.facts import fact
from tiny_chat.corpus.intents import ready_answer
from tiny_chat.corpus.memory import NAMES, name_recall, name_unknown, new_name, thing_recall
from tiny_chat.corpus.numbers import counting, large_sum, sequence, small_sum
from tiny_chat.corpus.reading import drill, echo, long_paste, look_up
from tiny_chat.corpus.stories import poem, story
from tiny_chat.corpus.structured import json_answer, json_identity
from tiny_chat.corpus.tools import tool_dialogue
from tiny_chat.corpus.unknown import unknown

# Topics of ordinary conversations, and how often they come. These speak both languages.
TOPICS: dict[Skill, float] = {
    ready_answer: 46,
    fact: 11,
    small_sum: 8,
    unknown: 8,
    story: 5,
    poem: 5,
    counting: 4,
    sequence: 2.5,
    large_sum: 1,
}
# These are in English only.
ENGLISH_TOPICS: dict[Skill, float] = {echo: 5, look_up: 7, json_answer: 5, json_identity: 0.7}
BRIEF_TOPICS: dict[Skill, float] = {
    ready_answer: 20,
    fact: 6,
    small_sum: 4,
    large_sum: 1,
    unknown: 4,
}

PLAIN_SYSTEMS = (
    "You are a [helpful|friendly|kind|polite|useful|good] assistant.",
    "You are a helpful[, harmless|, honest|] AI assistant[.| that answers questions.]",
    "You are tiny-chat[.|, a helpful assistant.|, the built-in model of OpsGPT Serve.]",
    "[Answer the user's questions.|Be helpful.|Help the user.|Answer kindly and clearly.|Be polite.]",
    "You are an assistant[.| for OpsGPT Serve.| in a chat window.]",
    "你是一个[乐于助人的|友好的|]助手。",
)
BRIEF_SYSTEMS = (
    "[Answer|Reply|Always answer] [briefly|in one word|in a few words|shortly|with one word][.|!]",
    "[Be brief.|Keep your answers short.|Be concise.|Use as few words as you can.|Short answers only.]",
    "You are a helpful assistant. [Answer in one word.|Be brief.|Keep it short.]",
)
BRIEF_SYSTEMS_ZH = (
    "[请|]用[一个词|一句话|几个字]回答。",
    "请[简短|简单][地|]回答。",
    "回答要简短。",
)
CHINESE_SYSTEMS = (
    "[Answer|Always answer|Reply|Please answer|Respond|Speak] [in|only in] Chinese[.|!]",
    "You are a helpful assistant. [Answer|Reply] in Chinese.",
    "[请|总是|]用中文回答。",
    "你是一个助手，[请|]用中文回答。",
)
ENGLISH_SYSTEMS = ("[Answer|Always answer|Reply] in English[.|!]", "[请|]用英文回答。")
PERSONA_SYSTEMS = (
    "[You are|Your name is|You are called] {x}[.|, a helpful assistant.|, a friendly [teacher|robot|cook|guide].|, a [pirate|wise owl|poet|tutor|doctor|king].]",
    "You are a helpful assistant [called|named] {x}.",
    "你[叫|是]{x}[。|，一个助手。]",
)
PERSONA_ASK = (
    "What is your name?",
    "[Who are you|What's your name|How shall I call you]?",
    "[Hello|Hi]! What is your name?",
    "Hello, who are you?",
)
PERSONA_ANSWER = (
    "My name is {x}.[| How can I help you?]",
    "I am {x}.[| How can I help you?]",
    "[Hello|Hi]! I am {x}.",
)
PERSONA_ASK_ZH = ("你叫什么名字？", "你是谁？", "你好，你叫什么？")
PERSONA_ANSWER_ZH = ("我[叫|是]{x}。", "你好，我叫{x}。")
PERSONAS = (
    "Nova Atlas Luna Robin Max Ada Echo Iris Felix Juno Sage Milo Pixel Orion Clara Bruno".split()
)


def choose(topics: dict[Skill, float], rng: random.Random, voice: Voice) -> list[Exchange]:
    """The exchanges of one topic."""
    skill = rng.choices(list(topics), list(topics.values()))[0]
    return skill(rng, voice)


def ordinary(rng: random.Random, voice: Voice) -> list[Exchange]:
    """One topic that needs nothing from before."""
    if voice.brief:
        return choose(BRIEF_TOPICS, rng, voice)
    english = voice == Voice()
    return choose(TOPICS | ENGLISH_TOPICS if english else TOPICS, rng, voice)


def stretch(rng: random.Random, voice: Voice) -> list[Exchange]:
    """One ordinary topic, or a stretch in which something is remembered."""
    roll = rng.random()
    if roll < 0.07:
        return name_recall(rng, voice, ordinary)
    if roll < 0.11 and voice == Voice():
        return thing_recall(rng, voice, ordinary)
    return ordinary(rng, voice)


def conversation(system: str, exchanges: Sequence[Exchange]) -> Dialogue:
    """Exchanges as a dialogue; an empty `system` is left out."""
    opening = [message("system", system)] if system else []
    return Dialogue((*opening, *turns(exchanges)))


def plain_dialogue(rng: random.Random) -> Dialogue:
    """One to six stretches, the language of the answer following the question's."""
    chinese = rng.random() < 0.2
    exchanges: list[Exchange] = []
    if rng.random() < 0.03:
        exchanges += name_unknown(rng, Voice("zh", "zh") if chinese else Voice())
    for _ in range(rng.choices((1, 2, 3, 4, 6), (50, 22, 14, 9, 5))[0]):
        if rng.random() < 0.06:
            chinese = not chinese
        exchanges += stretch(rng, Voice("zh", "zh") if chinese else Voice())
    return conversation(pick(PLAIN_SYSTEMS, rng) if rng.random() < 0.35 else "", exchanges)


def long_dialogue(rng: random.Random) -> Dialogue:
    """A conversation of up to some 3000 tokens, or one with a long text in it."""
    chinese = rng.random() < 0.1
    voice = Voice("zh", "zh") if chinese else Voice()
    exchanges: list[Exchange] = []
    if rng.random() < 0.35:
        exchanges += long_paste(rng, Voice(), ready_answer)
    letters = rng.randint(2500, 10_500) // (2 if chinese else 1)
    while sum(len(e.ask) + len(e.answer) for e in exchanges) < letters:
        exchanges += stretch(rng, voice)
    return conversation(pick(PLAIN_SYSTEMS, rng) if rng.random() < 0.3 else "", exchanges)


def styled_dialogue(rng: random.Random) -> Dialogue:
    """A system message that asks for short answers or for a language."""
    kind = rng.randrange(4)
    if kind < 2:
        chinese = rng.random() < 0.25
        system = pick(BRIEF_SYSTEMS_ZH if chinese else BRIEF_SYSTEMS, rng)
        voice = Voice("zh", "zh", True) if chinese else Voice("en", "en", True)
    elif kind == 2:
        system, voice = pick(CHINESE_SYSTEMS, rng), Voice(rng.choice(("en", "en", "zh")), "zh")
    else:
        system, voice = pick(ENGLISH_SYSTEMS, rng), Voice(rng.choice(("en", "zh")), "en")
    exchanges = [e for _ in range(rng.choice((1, 1, 1, 2, 3))) for e in ordinary(rng, voice)]
    return conversation(system, exchanges)


def persona_dialogue(rng: random.Random) -> Dialogue:
    """A system message that gives the assistant another name."""
    name = rng.choice(PERSONAS) if rng.random() < 0.5 else new_name(rng)
    language = "zh" if rng.random() < 0.2 else "en"
    ask = by_language(language, PERSONA_ASK, PERSONA_ASK_ZH)
    answer = by_language(language, PERSONA_ANSWER, PERSONA_ANSWER_ZH)
    exchanges = [Exchange(pick(ask, rng), pick(answer, rng, x=name))]
    if rng.random() < 0.3:
        exchanges.append(Exchange(f"I am {rng.choice(NAMES)}.", "Nice to meet you!"))
    return conversation(pick(PERSONA_SYSTEMS, rng, x=name), exchanges)


def drills(seed: int) -> Iterator[Dialogue]:
    """Copying drills without end, to begin with: see `drill`."""
    rng = random.Random(seed)
    while True:
        yield conversation("", drill(rng, Voice()))


def dialogues(seed: int) -> Iterator[Dialogue]:
    """Dialogues without end; equal seeds give equal sequences."""
    rng = random.Random(seed)
    while True:
        roll = rng.random()
        if roll < 0.06:
            yield conversation("", drill(rng, Voice()))
        elif roll < 0.74:
            yield plain_dialogue(rng)
        elif roll < 0.88:
            yield tool_dialogue(rng, PLAIN_SYSTEMS, ordinary)
        elif roll < 0.955:
            yield styled_dialogue(rng)
        elif roll < 0.983:
            yield persona_dialogue(rng)
        else:
            yield long_dialogue(rng)
