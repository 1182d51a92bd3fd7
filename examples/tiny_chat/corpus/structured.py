"""Answers that are JSON and nothing else."""

import json
import random

from tiny_chat.corpus.dialogue import Exchange, Voice, pick
from tiny_chat.corpus.memory import NAMES, THINGS, new_name

JOBS, CITIES = THINGS[8][4], THINGS[1][4]
ASK = (
    "[Answer|Reply|Respond] [as|in|with] JSON with [the |]keys {keys}: {text}",
    "[Answer|Reply|Respond] [as|in|with] JSON[ only|] with [the |]keys {keys}.\n{text}",
    "{text} [Give|Return|Write] [it|that|this] as [a |]JSON [object |]with [the |]keys {keys}.",
    "[Extract|Get] {keys} as JSON[ from this text|]: {text}",
    "[Return|Write] a JSON object with [the |]keys {keys} for [this|this text|the text]: {text}",
)
ASK_FREE = (
    "[Give|Write|Make|Return] [me |]a JSON object with [the |]keys {keys}[.|, please.|]",
    "[Answer|Reply] [as|in] JSON with [the |]keys {keys}[.|]",
    "[Give me|Write] [an example of |some ]JSON with [the |]keys {keys}[.|]",
)
SENTENCES = (
    "{name} is {age} years old and lives in {city}[.|, working as a {job}.]",
    "{name} is a {job} from {city}, aged {age}.",
    "[My friend|My sister|My brother|A man called|The new] {name} ({age}) is a {job} in {city}.",
    "In {city} lives {name}, a {job} of {age} years.",
    "{name}, {age}, {job}, {city}.",
)


def person(rng: random.Random) -> dict[str, object]:
    """The values the texts are about."""
    name = rng.choice(NAMES) if rng.random() < 0.6 else new_name(rng)
    return {
        "name": name,
        "age": rng.randint(5, 95),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
    }


def key_list(keys: list[str], rng: random.Random) -> str:
    """Keys as people write them."""
    marked = [f'"{key}"' for key in keys] if rng.random() < 0.3 else keys
    if rng.random() < 0.5 and len(marked) > 1:
        return f"{', '.join(marked[:-1])} and {marked[-1]}"
    return ", ".join(marked)


def json_answer(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A JSON object with the asked keys, from a sentence or made up."""
    facts = person(rng)
    if rng.random() < 0.6:
        sentence = pick(SENTENCES, rng, **facts)
        told = [key for key, value in facts.items() if str(value) in sentence]
        keys = rng.sample(told, k=rng.randint(1, len(told)))
        ask = pick(ASK, rng, keys=key_list(keys, rng), text=sentence)
    else:
        facts |= {"colour": rng.choice(THINGS[0][4]), "count": rng.randint(1, 20), "ok": True}
        facts |= {"answer": rng.choice(("yes", "no")), "word": rng.choice(THINGS[5][4])}
        facts |= {"title": "A small example", "language": rng.choice(("English", "Chinese"))}
        keys = rng.sample(list(facts), k=rng.randint(1, 4))
        ask = pick(ASK_FREE, rng, keys=key_list(keys, rng))
    return [Exchange(ask, json.dumps({key: facts[key] for key in keys}, ensure_ascii=False))]


def json_identity(rng: random.Random, voice: Voice) -> list[Exchange]:
    """The model's own name as JSON."""
    key = rng.choice(("name", "answer", "reply", "my_name"))
    asks = (
        "What is your name? [Answer|Reply] [as|in] JSON with the key {k}[.|]",
        "[Answer|Reply] [as|in] JSON with key {k}: [what is your name|who are you]?",
        "Tell me your name as JSON with the key {k}.",
    )
    return [Exchange(pick(asks, rng, k=key), json.dumps({key: "tiny-chat"}))]
