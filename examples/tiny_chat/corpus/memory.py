# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""What the user said earlier in the same conversation: names, things liked, things told."""

import random

from tiny_chat.corpus.dialogue import Exchange, Skill, Voice, by_language, pick

NAMES = (
    "Anna Ben Carla David Eva Frank Grace Henry Ida Jack Kate Leo Mary Nina Oscar Paul Rosa Sam "
    "Tina Victor Wendy Peter Lucy Max Emma Noah Mia Alice Bob Carol Dave Erin George Hannah Ivan "
    "Julia Karl Laura Mark Nora Oliver Petra Quinn Robert Sarah Thomas Ursula Vera Walter Yuki Zoe "
    "Ahmed Bao Chen Diego Elena Fatima Giulia Hans Ingrid Jorge Kenji Lars Marta Nikolai Olga Pedro "
    "Ravi Sven Tariq Uma Wei Xiao Alex Daniel Sophie James John Michael Linda"
).split()
NAMES_ZH = "小明 小红 小李 小王 李华 王芳 张伟 刘洋 陈静 赵磊 小刚 小丽 阿杰 小美 大伟 李雷 韩梅梅 晓东".split()
TELL_NAME = (
    "[My name is|I am|I'm|Call me|You can call me|my name is] {x}[.|!|]",
    "[Hello|Hi|Hey][,|!] [my name is|I am|I'm|this is] {x}[.|!|]",
    "[Hello|Hi]! [My name is|I am] {x}. [Nice to meet you.|How are you?|Please remember my name.]",
    "[My name is|I am] {x}, and [I live in Paris|I am new here|I like tea|I work with computers].",
)
TELL_NAME_ZH = (
    "我[叫|是]{x}。",
    "[你好|嗨]，我[叫|是]{x}[。|！]",
    "我的名字是{x}。",
    "你好！我叫{x}，请记住我的名字。",
)
GREET_NAME = (
    "[Nice to meet you|Hello|Hi|Welcome|Pleased to meet you], {x}! [How can I help you?|What can I do for you?|I am tiny-chat.|]",
    "Hello {x}, [I am tiny-chat|nice to meet you]. [How can I help you?|What would you like to talk about?]",
)
GREET_NAME_ZH = ("你好，{x}！[很高兴认识你。|有什么可以帮你的吗？|我是 tiny-chat。]",)
ASK_NAME = (
    "[What is|What's|Whats|Tell me|Say] my name[?|]",
    "[Do you|Can you] [remember|know|recall] my name?",
    "[Who am I|What am I called|What did I say my name was|And what is my name|Do you know who I am]?",
)
ASK_NAME_ZH = ("我叫什么[名字|]？", "你[还|]记得我的名字吗？", "我是谁？", "我的名字是什么？")
KNOW_NAME = (
    "Your name is {x}.",
    "You are {x}.",
    "[Of course|Yes]: your name is {x}[.|!]",
    "You told me that your name is {x}.",
)
KNOW_NAME_ZH = ("你叫{x}。", "你的名字是{x}。", "当然记得，你叫{x}。")
UNKNOWN_NAME = (
    "I do not know your name. [What is it?|You have not told me yet.|Please tell me.]",
    "You have not told me your name[ yet|]. [What is it?|]",
)
UNKNOWN_NAME_ZH = ("我还不知道你的名字。[|你叫什么？]", "你还没有告诉我你的名字。")
THINGS = (
    (
        "colour",
        "[My favourite colour is|The colour I like best is] {x}.",
        "What is my favourite colour?",
        "Your favourite colour is {x}.",
        "red blue green yellow black white orange purple pink grey brown".split(),
    ),
    (
        "city",
        "I live in {x}.",
        "[Where do I live|In which city do I live]?",
        "You live in {x}.",
        "Paris London Berlin Rome Madrid Tokyo Beijing Vienna Oslo Cairo Lima Boston Dublin Prague Sydney Toronto Shanghai Munich".split(),
    ),
    (
        "pet",
        "I have a {x}.",
        "What [pet|animal] do I have?",
        "You have a {x}.",
        "cat dog rabbit hamster horse parrot goldfish turtle goat pony".split(),
    ),
    (
        "age",
        "I am {x} years old.",
        "How old am I?",
        "You are {x} years old.",
        [str(n) for n in range(5, 95)],
    ),
    (
        "number",
        "[Remember|Please remember|Keep in mind] the number {x}.",
        "[What was|Which was|What is] the number?",
        "The number is {x}.",
        [str(n) for n in range(2, 1000)],
    ),
    (
        "word",
        "[Remember|Please remember] the word {x}.",
        "What was the word?",
        "The word was {x}.",
        "apple river stone lamp bridge cloud spoon paper garden window tiger candle rocket pencil mirror forest button island".split(),
    ),
    (
        "code",
        "The [secret word|password|code] is {x}.",
        "What is the [secret word|password|code]?",
        "It is {x}.",
        "banana sunrise thunder pepper winter maple orbit falcon cactus velvet".split(),
    ),
    (
        "food",
        "[I like to eat|My favourite food is] {x}.",
        "What is my favourite food?",
        "Your favourite food is {x}.",
        "pizza rice soup bread noodles cheese salad fish apples dumplings pasta".split(),
    ),
    (
        "job",
        "I work as a {x}.",
        "What is my [job|work]?",
        "You work as a {x}.",
        "teacher doctor cook baker farmer driver nurse painter pilot writer programmer".split(),
    ),
)
NOTED = (
    "[All right|Good|Fine|OK], I will remember that.",
    "[Noted|I see|Thank you for telling me][.|!]",
    "[That is nice|How nice]! I will keep it in mind.",
)


def new_name(rng: random.Random) -> str:
    """A name nobody has listed, so that the model learns to copy and not to choose."""
    parts = [rng.choice("bcdfghklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))]
    return "".join(parts).capitalize() + rng.choice(("", "n", "s", "r", "l", ""))


def name_recall(rng: random.Random, voice: Voice, between: Skill) -> list[Exchange]:
    """The user gives a name; some exchanges later the assistant still knows it."""
    zh_name = voice.ask == "zh" and rng.random() < 0.7
    name = rng.choice(NAMES_ZH) if zh_name else rng.choice(NAMES)
    if not zh_name and rng.random() < 0.4:
        name = new_name(rng)
    exchanges = [
        Exchange(
            pick(by_language(voice.ask, TELL_NAME, TELL_NAME_ZH), rng, x=name),
            pick(by_language(voice.answer, GREET_NAME, GREET_NAME_ZH), rng, x=name),
        )
    ]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 5))):
        exchanges += between(rng, voice)
    ask = pick(by_language(voice.ask, ASK_NAME, ASK_NAME_ZH), rng)
    known = pick(by_language(voice.answer, KNOW_NAME, KNOW_NAME_ZH), rng, x=name)
    return [*exchanges, Exchange(ask, known)]


def name_unknown(rng: random.Random, voice: Voice) -> list[Exchange]:
    """The user asks for a name that was never told."""
    ask = pick(by_language(voice.ask, ASK_NAME, ASK_NAME_ZH), rng)
    return [Exchange(ask, pick(by_language(voice.answer, UNKNOWN_NAME, UNKNOWN_NAME_ZH), rng))]


def thing_recall(rng: random.Random, voice: Voice, between: Skill) -> list[Exchange]:
    """Other things the user tells, one to three of them, and asks for later; English only."""
    told = rng.sample(THINGS, k=rng.choice((1, 1, 2, 3)))
    values = [rng.choice(values) for *_, values in told]
    exchanges = [
        Exchange(pick([tell], rng, x=value), pick(NOTED, rng))
        for (_, tell, _, _, _), value in zip(told, values, strict=True)
    ]
    for _ in range(rng.choice((0, 0, 1, 2))):
        exchanges += between(rng, Voice())
    for (_, _, ask, answer, _), value in rng.sample(
        list(zip(told, values, strict=True)), k=len(told)
    ):
        exchanges.append(Exchange(pick([ask], rng), pick([answer], rng, x=value)))
    return exchanges
