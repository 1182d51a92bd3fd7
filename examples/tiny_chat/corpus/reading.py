# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""Answers that come from the text in the question: look-ups, repeating, long pastes."""

import random

from tiny_chat.corpus.dialogue import Exchange, Skill, Voice, expand, pick
from tiny_chat.corpus.memory import NAMES, new_name
from tiny_chat.corpus.stories import english_story
from tiny_chat.corpus.story_parts import HEROES

SUBJECTS = "museum library school harbour station bakery hotel garden factory theatre market castle bridge office".split()
PLACES = "Paris London Berlin Rome Madrid Oslo Vienna Lima Cairo Boston Dublin Prague Lisbon Zurich Geneva Kyoto".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# sentence, question, kind of value: {s} is a subject, {p} a person, {v} the value. The sentence is
# also the answer.
RELATIONS = (
    ("The {s} is in {v}.", "Where is the {s}?", "place"),
    ("The {s} stands in {v}.", "In which city does the {s} stand?", "place"),
    ("The {s} opens at {v} o'clock.", "When does the {s} open?", "hour"),
    ("The {s} is closed on {v}.", "On which day is the {s} closed?", "day"),
    ("The {s} was built in {v}.", "When was the {s} built?", "year"),
    ("{v} works in the {s}.", "Who works in the {s}?", "name"),
    ("The {s} belongs to {v}.", "Who owns the {s}?", "name"),
    ("A ticket for the {s} costs {v} euros.", "How much is a ticket for the {s}?", "price"),
    ("The port of the {s} is {v}.", "What is the port of the {s}?", "number"),
    ("The code of the {s} is {v}.", "What is the code of the {s}?", "number"),
    ("The head of the {s} is {v}.", "Who is the head of the {s}?", "name"),
    ("The {s} has {v} rooms.", "How many rooms does the {s} have?", "price"),
    ("The meeting in the {s} is on {v}.", "When is the meeting in the {s}?", "day"),
    ("{p} lives in {v}.", "Where does {p} live?", "place"),
    ("{p} was born in {v}.", "When was {p} born?", "year"),
    ("{p} likes {v}.", "What does {p} like?", "thing"),
    ("{p} is married to {v}.", "Who is {p} married to?", "name"),
    ("{p} has a red {v}.", "What does {p} have?", "object"),
    ("{p} sits in room {v}.", "In which room does {p} sit?", "price"),
    ("{p}'s number is {v}.", "What is {p}'s number?", "number"),
    ("{p} comes on {v}.", "When does {p} come?", "day"),
)
THINGS = (
    "tea coffee music books cats dogs bread football chess rain apples maps trains roses".split()
)
OBJECTS = "bicycle car coat lamp house boat hat bag chair pencil kite scarf".split()
FRAMES = (
    "{facts}\n\n{question}",
    "Context:\n{facts}\n\nQuestion: {question}",
    "Context: {facts}\n\nQuestion: {question}\nAnswer:",
    "[Use|Read] [this|the following] [text|context|information] [to answer the question|and answer]:\n{facts}\n\n{question}",
    "{question}\n\n[Here is the text|Known information|Text|Documents]:\n{facts}",
    "Answer from [the text|the context|these facts] only.\n\n{facts}\n\n{question}",
)


def value_of(kind: str, rng: random.Random) -> str:
    """A random value of that kind."""
    if kind == "name":
        return rng.choice(NAMES) if rng.random() < 0.6 else new_name(rng)
    lists = {"place": PLACES, "day": DAYS, "thing": THINGS, "object": OBJECTS}
    if kind in lists:
        return rng.choice(lists[kind])
    ranges = {"hour": (6, 12), "year": (1700, 2024), "price": (2, 60), "number": (100, 29_999)}
    return str(rng.randint(*ranges[kind]))


def facts_and_question(rng: random.Random, count: int) -> tuple[list[str], Exchange]:
    """`count` facts, and a question about one of them or, seldom, about a missing one."""
    people = [value_of("name", rng) for _ in range(6)]
    pairs = [(s, r) for s in SUBJECTS for r in RELATIONS if "{p}" not in r[0]]
    pairs += [(p, r) for p in people for r in RELATIONS if "{p}" in r[0]]
    chosen = rng.sample(pairs, k=count)
    values = [value_of(relation[2], rng) for _, relation in chosen]
    filled = [
        [
            text.replace("{s}", subject).replace("{p}", subject).replace("{v}", value)
            for text in row[:2]
        ]
        for (subject, row), value in zip(chosen, values, strict=True)
    ]
    answer, question = filled[0]
    facts = [sentence for sentence, _ in filled]
    if rng.random() < 0.12 and count > 1:
        del facts[0]
        answer = expand("The text does not say[ that|].", rng)
    rng.shuffle(facts)
    return facts, Exchange(question, answer)


def look_up(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A question about a few facts given with it; English only."""
    facts, (question, answer) = facts_and_question(rng, rng.choice((1, 2, 3, 4, 6, 8)))
    ask = pick(FRAMES, rng, facts=rng.choice((" ", "\n", "\n- ")).join(facts), question=question)
    return [Exchange(ask, answer)]


def long_paste(rng: random.Random, voice: Voice, then: Skill) -> list[Exchange]:
    """A long text, and somewhere around it a short question; the answer stays short."""
    kinds = [rng.choice(HEROES)[:2] for _ in range(rng.randint(2, 9))]
    stories = [english_story(rng, kind, name) for kind, name in kinds]
    if rng.random() < 0.5:
        facts, (question, answer) = facts_and_question(rng, rng.randint(2, 5))
        for fact in facts:
            stories.insert(rng.randint(0, len(stories)), fact)
    else:
        question, answer = then(rng, voice)[0]
    text = "\n\n".join(stories)
    ask = f"{text}\n\n{question}" if rng.random() < 0.7 else f"{question}\n\n{text}"
    return [Exchange(ask, answer)]


WORDS = (
    "apple river stone lamp bridge cloud spoon paper garden window tiger candle rocket pencil mirror "
    "forest button island the a small old blue quick my your is runs sees likes near under and with"
).split()
ECHO_ASK = (
    "[Repeat|Say|Please repeat|Repeat after me|Echo|Please say][:|] {x}",
    'Say [exactly|]: "{x}"',
    "[Repeat|Write|Say] [this|the following|these words][ sentence| exactly|]: {x}",
    "[Answer|Reply] with [only |just |]{x}",
)


def echo(rng: random.Random, voice: Voice) -> list[Exchange]:
    """The user's words again; also the practice that copying names and arguments needs."""
    if rng.random() < 0.4:
        words = [new_name(rng) if rng.random() < 0.5 else str(rng.randint(0, 99_999))]
        words += [rng.choice(WORDS) for _ in range(rng.randint(0, 3))]
    else:
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 7))]
    text = " ".join(words)
    text = text.capitalize() + "." if rng.random() < 0.3 else text
    return [Exchange(pick(ECHO_ASK, rng, x=text), text)]


CHARACTERS = "天地人山水火木金日月风云花鸟鱼马牛羊书车门窗红黄蓝白大小多少东西南北春夏秋冬"


def any_word(rng: random.Random) -> str:
    """A word, a made-up name, a number, a city or two Chinese characters."""
    kind = rng.randrange(6)
    if kind == 0:
        return str(rng.randint(0, 99_999))
    if kind == 1:
        return "".join(rng.sample(CHARACTERS, k=2))
    if kind in (2, 3):
        return new_name(rng) if kind == 2 else new_name(rng).lower()
    return rng.choice(WORDS if kind == 4 else PLACES)


def drill(rng: random.Random, voice: Voice) -> list[Exchange]:
    """Copying and looking up with nothing to guess from.

    Everything that repeats the user's words (names, arguments, values) rests on this, and a small
    model only finds it out soon enough from examples in which nothing else helps.
    """
    if rng.random() < 0.6:
        text = " ".join(any_word(rng) for _ in range(rng.randint(1, rng.choice((2, 4, 8, 16)))))
        return [Exchange(pick(ECHO_ASK, rng, x=text), text)]
    table = {any_word(rng): any_word(rng) for _ in range(rng.randint(2, rng.choice((2, 4, 8))))}
    lines = rng.choice(("\n", ", ", "; ")).join(f"{key}: {value}" for key, value in table.items())
    asked = rng.sample(list(table), k=min(len(table), rng.randint(1, 2)))
    first = Exchange(
        f"{lines}\n\n" + pick(("What is {x}?", "{x}"), rng, x=asked[0]), table[asked[0]]
    )
    return [first, *(Exchange(f"What is {key}?", table[key]) for key in asked[1:])]
