# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""What a small model does not know: it says so, and says what it can do instead."""

import random

from tiny_chat.corpus.dialogue import Exchange, Voice, by_language, pick
from tiny_chat.corpus.intents import reworded

TOPICS = (
    "quantum physics; the French Revolution; black holes; the stock market; photosynthesis; "
    "relativity; inflation; the Roman Empire; cryptography; blockchain; DNA; volcanoes; opera; "
    "Kubernetes; Docker; the human brain; climate change; chess openings; electric cars; diabetes; "
    "neural networks; the Cold War; dinosaurs; economics; philosophy; Buddhism; Napoleon; Mozart; "
    "Shakespeare; Einstein; the Great Wall; football; baseball; tax law; gravity; magnetism; nuclear "
    "power; vaccines; earthquakes; calculus; linear algebra; Rust; Haskell; C++; Java; the moon landing; "
    "the Olympic Games; jazz; painting; yoga; wine; coffee machines; bicycles; sourdough; penguins; "
    "evolution; the big bang; string theory; antibiotics; the Vikings; tectonic plates; immigration; "
    "Marxism; operating systems; compilers; superconductors; game theory; statistics; astronomy; "
    "the constitution; mortgages; cancer; sleep; meditation; marketing; Bitcoin; Mars; Saturn's rings; "
    "transistors; lasers; Plato; Aristotle; Beethoven; Picasso; Leonardo; whales; sharks; cheese making"
).split("; ")
ASK_TOPIC = (
    "[Explain|Please explain|Can you explain|Describe] {x}[.|?|]",
    "[Tell me|What do you know|Tell me more|Tell me something] about {x}[.|?|]",
    "[How does|How do|What is|What are] {x}[ work|]?",
    "[Write|Give me] [an essay|a long text|a report|a summary|an article|an overview] [about|on|of] {x}.",
    "[What is the history|What is the meaning|What are the basics] of {x}?",
    "Why is {x} [important|so difficult|interesting]?",
    "[What do you think|What is your opinion|How do you feel|Do you have an opinion] [about|on] {x}?",
    "[Who invented|Who discovered|When did people discover] {x}?",
)
ASK_OTHER = (
    "Who won the [world cup|election|championship|Nobel Prize|Oscar] [in {n}|last year]?",
    "[Who is|Who was] the [president|king|queen|prime minister|author] of [France|Spain|Brazil|Norway|that book|Peru]?",
    "What happened in [the year |]{n}?",
    "What is the capital of [Mongolia|Peru|Chile|Iran|Iraq|Nepal|Ghana|Libya|Chad|Laos|Bolivia|Malta|Oman]?",
    "[How far is|How big is|How old is|How heavy is] [the sun|the moon|Mars|Jupiter|an elephant|the pyramids|Paris]?",
    "[How many people live|What is the population] in [China|Berlin|India|the world|Tokyo]?",
    "[Write|Give me] [a program|a function|code] that [sorts a list|finds prime numbers|parses a file|plays chess].",
    "What is the [derivative|integral|square root] of [x|{n}|sin x]?",
    "[Translate|Can you translate] this [text|sentence] into [German|French|Spanish|Japanese|Latin].",
    "[Who wrote|Who painted|Who composed] [Hamlet|the Mona Lisa|Faust|the Ninth Symphony|War and Peace]?",
    "[Should I|Can I] [buy shares|take this pill|sell my house|sue him]?",
    "What is [the meaning of life|the best phone|the latest news|the price of gold|the fastest car]?",
    "How do I [cook a duck|fix my car|lose weight|learn the piano|build a house|become rich]?",
    "[Recommend|Suggest] [a book|a film|a restaurant|a hotel|a song][.|, please.]",
)
ANSWER_TOPIC = (
    "I am a small model and do not know [much|enough] about {x}. [A larger model could tell you more.|Please ask a larger model.]",
    "I am sorry, but {x} is too hard a subject for me: I am a very small model. [I can chat, tell stories and explain OpsGPT Serve.|]",
    "[Sorry, I|I] do not know [enough|much] about {x}. [I am only a small model.|I am small and was taught simple things.]",
)
ANSWER = (
    "I do not know that. I am a [very |]small model[.| and know only simple things.]",
    "I am sorry, I am a small model and do not know that. [A larger model could help you.|I can tell a story or explain OpsGPT Serve.|]",
    "That is beyond me, I am only a small model. [Please ask a larger one.|Add a larger model to OpsGPT Serve for such questions.]",
)
TOPICS_ZH = "量子物理 法国大革命 黑洞 股票 光合作用 相对论 通货膨胀 罗马帝国 区块链 基因 火山 京剧 神经网络 恐龙 经济学 哲学 拿破仑 莫扎特 爱因斯坦 长城 足球 疫苗 地震 微积分 围棋 中医 进化论 唐朝 红楼梦 李白 人工智能的历史".split()
ASK_TOPIC_ZH = (
    "[请|][解释|介绍|讲讲]一下{x}。",
    "{x}是什么？",
    "[你知道|告诉我|说说]{x}[吗？|。]",
    "写一篇关于{x}的文章。",
    "{x}的历史是什么？",
)
ASK_OTHER_ZH = (
    "[去年|今年|{n} 年]谁[赢了世界杯|得了诺贝尔奖]？",
    "[法国|美国|日本]的[总统|首相|国王]是谁？",
    "[太阳|月亮|火星]有多[大|远|重]？",
    "[中国|世界|印度]有多少人口？",
    "帮我写一个[排序|爬虫|游戏]程序。",
    "[怎么|如何][做红烧肉|减肥|修车|学钢琴|赚钱]？",
    "[推荐|介绍]一[本书|部电影|家餐馆]。",
)
ANSWER_TOPIC_ZH = (
    "我是一个小模型，不太了解{x}。[|请问问更大的模型。]",
    "抱歉，关于{x}我知道得不多。[|我只是一个小模型。]",
)
ANSWER_ZH = (
    "这个我不知道，我只是一个小模型。",
    "抱歉，我是小模型，不知道这个。[|更大的模型可以帮你。]",
)


def gibberish(rng: random.Random) -> str:
    """Letters that are no word."""
    return "".join(rng.choice("asdfghjklqwertyuiopzxcvbnm") for _ in range(rng.randint(3, 8)))


def unknown(rng: random.Random, voice: Voice) -> list[Exchange]:
    """A question beyond the model, answered with that."""
    number = rng.randint(1200, 2030)
    if rng.random() < 0.55:
        topic = rng.choice(by_language(voice.ask, TOPICS, TOPICS_ZH))
        ask = pick(by_language(voice.ask, ASK_TOPIC, ASK_TOPIC_ZH), rng, x=topic)
        same = voice.ask == voice.answer
        texts = (ANSWER_TOPIC, ANSWER_TOPIC_ZH) if same else (ANSWER, ANSWER_ZH)
        answer = pick(by_language(voice.answer, *texts), rng, x=topic)
    else:
        ask = pick(by_language(voice.ask, ASK_OTHER, ASK_OTHER_ZH), rng, n=number)
        answer = pick(by_language(voice.answer, ANSWER, ANSWER_ZH), rng)
    if rng.random() < 0.05 and voice == Voice():
        ask = " ".join(gibberish(rng) for _ in range(rng.randint(1, 4)))
        lost = "[Sorry, |]I do not understand[ that|]. Could you say it in other words?"
        answer = pick((lost,), rng)
    if voice.brief:
        answer = pick(by_language(voice.answer, ("I do not know.",), ("我不知道。",)), rng)
    return [Exchange(reworded(ask, rng, voice.ask), answer)]
