"""Counting, small sums, days and letters."""

import random

from tiny_chat.corpus.dialogue import Exchange, Voice, by_language, pick
from tiny_chat.corpus.intents import reworded

COUNT_ASK = (
    "[Count|Please count|Can you count|Count up] from {a} to {b}[.|?|, please.|]",
    "[List|Write|Give me|Say] [the|all] numbers from {a} to {b}[.|]",
)
COUNT_ASK_ZH = ("[请|]从 {a} 数到 {b}[。|吧。|]", "[请|]写出 {a} 到 {b} 的[所有|]数字。")
COUNT_TO = ("[Count|Please count|Can you count] to {b}[.|?|, please.|]",)
COUNT_TO_ZH = ("[请|]数到 {b}[。|吧。]",)


def counting(rng: random.Random, voice: Voice) -> list[Exchange]:
    """Count up, and at times down, by ones."""
    first = 1 if rng.random() < 0.6 else rng.randint(1, 60)
    last = first + rng.choice(
        (4, 9, 14, 19, 29, 39, 49, rng.randint(3, 50), 99 if first == 1 else 9)
    )
    numbers = [str(n) for n in range(first, last + 1)]
    if first == 1 and rng.random() < 0.4:
        ask = pick(by_language(voice.ask, COUNT_TO, COUNT_TO_ZH), rng, b=last)
    elif rng.random() < 0.1:
        numbers.reverse()
        en = ("Count [down|backwards] from {b} to {a}[.|]",)
        ask = pick(by_language(voice.ask, en, ("从 {b} 倒数到 {a}。",)), rng, a=first, b=last)
    else:
        ask = pick(by_language(voice.ask, COUNT_ASK, COUNT_ASK_ZH), rng, a=first, b=last)
    comma, stop = ("、", "。") if voice.answer == "zh" else (", ", ".")
    return [Exchange(reworded(ask, rng, voice.ask), comma.join(numbers) + stop)]


SUM_ASK = (
    "[What is|What's|How much is|Calculate|Compute] {a} {sign} {b}[?|]",
    "{a} {sign} {b}[ = ?| =|?|]",
    "[Can you tell me what|Tell me what] {a} {sign} {b} is[?|.]",
    "[What is|How much is|What's] {a} {word} {b}[?|]",
)
SUM_ASK_ZH = (
    "{a} {sign} {b} [等于多少|是多少|等于几]？",
    "{a}{zh}{b}[等于多少|等于几|是多少]？",
    "算一下 {a} {sign} {b}。",
)


def small_sum(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A sum, difference or product small enough to know by heart."""
    kind = rng.randrange(3)
    if kind == 2:
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        sign, word, zh, value = rng.choice("*x×"), "times", "乘", a * b
    else:
        high = 10 if rng.random() < 0.4 else 30
        a, b = rng.randint(0, high), rng.randint(0, high)
        sign, word, zh, value = "+", "plus", "加", a + b
        if kind == 1:
            a, b = max(a, b), min(a, b)
            sign, word, zh, value = "-", "minus", "减", a - b
    names = {"a": a, "b": b, "sign": sign, "word": word, "zh": zh}
    ask = pick(by_language(voice.ask, SUM_ASK, SUM_ASK_ZH), rng, **names)
    if voice.brief:
        return [Exchange(ask, f"{value}")]
    shown = "×" if kind == 2 else sign
    en = (
        f"{a} {shown} {b} = {value}[.|]",
        f"The answer is {value}.",
        f"{a} {word} {b} is {value}.",
    )
    zh_answers = (f"{a} {shown} {b} = {value}。", f"等于 {value}。", f"{a}{zh}{b}等于 {value}。")
    return [Exchange(ask, pick(by_language(voice.answer, en, zh_answers), rng))]


def large_sum(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A sum that is too long for a small model: say so instead of guessing."""
    a, b, sign = rng.randint(101, 99_999), rng.randint(101, 99_999), rng.choice("+-*/×")
    ask = pick(
        by_language(voice.ask, SUM_ASK[:3], (SUM_ASK_ZH[0], SUM_ASK_ZH[2])),
        rng,
        a=a,
        b=b,
        sign=sign,
    )
    en = (
        "That is too large for me: I only do small sums[.|. A calculator will be better.]",
        "I am a small model and only do small sums, so I would get that wrong.",
    )
    zh = ("这个数太大了，我只会算小的。", "我是小模型，只会做简单的算术，这个会算错。")
    brief = by_language(voice.answer, ("Too large for me.",), ("太大了，我不会。",))
    answers = brief if voice.brief else by_language(voice.answer, en, zh)
    return [Exchange(ask, pick(answers, rng))]


SEQUENCES = {
    "days of the week": (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "一周的七天",
        "星期一 星期二 星期三 星期四 星期五 星期六 星期日",
    ),
    "months of the year": (
        "January February March April May June July August September October November December",
        "十二个月",
        "一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月",
    ),
    "letters of the alphabet": (
        "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        "英文字母",
        "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
    ),
    "seasons": ("spring summer autumn winter", "四季", "春天 夏天 秋天 冬天"),
    "colours of the rainbow": (
        "red orange yellow green blue indigo violet",
        "彩虹的颜色",
        "红 橙 黄 绿 青 蓝 紫",
    ),
    "planets": (
        "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
        "八大行星",
        "水星 金星 地球 火星 木星 土星 天王星 海王星",
    ),
    "primary colours": ("red yellow blue", "三原色", "红 黄 蓝"),
    "first ten prime numbers": (
        "2 3 5 7 11 13 17 19 23 29",
        "前十个质数",
        "2 3 5 7 11 13 17 19 23 29",
    ),
    "even numbers up to 20": (
        "2 4 6 8 10 12 14 16 18 20",
        "20 以内的偶数",
        "2 4 6 8 10 12 14 16 18 20",
    ),
    "odd numbers up to 20": (
        "1 3 5 7 9 11 13 15 17 19",
        "20 以内的奇数",
        "1 3 5 7 9 11 13 15 17 19",
    ),
}
SEQUENCE_ASK = (
    "[Name|List|Tell me|Give me|Write down|Say] the {name}[.|, please.|]",
    "[What are|Which are] the {name}?",
    "[Do you know|Can you name|Can you list] the {name}?",
)


def sequence(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A well-known list: days, months, letters ..."""
    name = rng.choice(list(SEQUENCES))
    english, zh_name, chinese = SEQUENCES[name]
    if rng.random() < 0.2:
        name = name.replace("colour", "color")
    zh_ask = ("[请|][列出|说出|告诉我]{name}。", "{name}[有哪些|是什么]？")
    ask = pick(
        by_language(voice.ask, SEQUENCE_ASK, zh_ask),
        rng,
        name=zh_name if voice.ask == "zh" else name,
    )
    if voice.answer == "zh":
        return [Exchange(ask, "、".join(chinese.split()) + "。")]
    words = english.split()
    if rng.random() < 0.3 and not words[0].isdigit() and len(words) > 2 and not voice.brief:
        answer = f"The {name} are {', '.join(words[:-1])} and {words[-1]}."
    else:
        answer = ", ".join(words) + "."
    return [Exchange(reworded(ask, rng, voice.ask), answer)]
