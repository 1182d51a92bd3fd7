# ruff: noqa: E501 - phrases stand one to a line, however long
"""Simple general knowledge as tables: one row is a thing and what is asked about it."""

import random
from dataclasses import dataclass

from tiny_chat.corpus.dialogue import Exchange, Voice, by_language, pick
from tiny_chat.corpus.intents import reworded


@dataclass(frozen=True)
class Table:
    """Rows `(thing, fact, thing in Chinese, fact in Chinese)` and how they are asked and told.

    `{x}` stands for the thing and `{y}` for the fact.
    """

    ask: tuple[str, ...]
    answer: tuple[str, ...]
    zh_ask: tuple[str, ...]
    zh_answer: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def rows(text: str) -> tuple[tuple[str, ...], ...]:
    """Rows from `a/b/c/d; ...`."""
    return tuple(tuple(row.strip().split("/")) for row in text.split(";"))


TABLES = (
    Table(
        ask=(
            "[What is|What's|Tell me|Do you know|Name] the capital [of|city of] {x}[?|]",
            "[Which|What] city is the capital of {x}?",
            "{x}'s capital[?|]",
        ),
        answer=("The capital of {x} is {y}.", "{y} is the capital of {x}.", "It is {y}."),
        zh_ask=("{x}的首都是[哪里|什么|哪个城市]？", "[请告诉我|]{x}的首都[？|。]"),
        zh_answer=("{x}的首都是{y}。",),
        rows=rows(
            "France/Paris/法国/巴黎; Germany/Berlin/德国/柏林; Italy/Rome/意大利/罗马; Spain/Madrid/西班牙/马德里;"
            "Portugal/Lisbon/葡萄牙/里斯本; China/Beijing/中国/北京; Japan/Tokyo/日本/东京; Russia/Moscow/俄罗斯/莫斯科;"
            "the United Kingdom/London/英国/伦敦; England/London/英格兰/伦敦; Austria/Vienna/奥地利/维也纳;"
            "Greece/Athens/希腊/雅典; Egypt/Cairo/埃及/开罗; India/New Delhi/印度/新德里; Poland/Warsaw/波兰/华沙;"
            "the United States/Washington/美国/华盛顿; the USA/Washington/美国/华盛顿; Canada/Ottawa/加拿大/渥太华;"
            "Australia/Canberra/澳大利亚/堪培拉; Sweden/Stockholm/瑞典/斯德哥尔摩; Norway/Oslo/挪威/奥斯陆;"
            "Finland/Helsinki/芬兰/赫尔辛基; Denmark/Copenhagen/丹麦/哥本哈根; Ireland/Dublin/爱尔兰/都柏林;"
            "Turkey/Ankara/土耳其/安卡拉; Brazil/Brasília/巴西/巴西利亚; Mexico/Mexico City/墨西哥/墨西哥城;"
            "Argentina/Buenos Aires/阿根廷/布宜诺斯艾利斯; Thailand/Bangkok/泰国/曼谷; Vietnam/Hanoi/越南/河内;"
            "South Korea/Seoul/韩国/首尔; Hungary/Budapest/匈牙利/布达佩斯; Cuba/Havana/古巴/哈瓦那; Kenya/Nairobi/肯尼亚/内罗毕"
        ),
    ),
    Table(
        ask=(
            "What colo[u|]r [is|has] {x}?",
            "[Tell me the|What is the] colo[u|]r of {x}[?|]",
            "Which colo[u|]r is {x}?",
        ),
        answer=("{x} is {y}.", "It is {y}.", "The colour of {x} is {y}."),
        zh_ask=("{x}是什么颜色[的|]？",),
        zh_answer=("{x}是{y}的。",),
        rows=rows(
            "the sky/blue/天空/蓝色; grass/green/草/绿色; snow/white/雪/白色; the sun/yellow/太阳/黄色;"
            "blood/red/血/红色; a banana/yellow/香蕉/黄色; coal/black/煤/黑色; the sea/blue/大海/蓝色;"
            "milk/white/牛奶/白色; a tomato/red/西红柿/红色; an orange/orange/橙子/橙色; chocolate/brown/巧克力/棕色;"
            "a leaf/green/叶子/绿色; the night/black/夜晚/黑色; a lemon/yellow/柠檬/黄色; a strawberry/red/草莓/红色"
        ),
    ),
    Table(
        ask=("What [sound|noise] does {x} make?", "What does {x} say?", "How does {x} sound?"),
        answer=("{x} says {y}.", "It says {y}."),
        zh_ask=("{x}怎么叫？", "{x}的叫声是什么？"),
        zh_answer=("{x}的叫声是“{y}”。",),
        rows=rows(
            'a dog/"woof"/狗/汪汪; a cat/"meow"/猫/喵喵; a cow/"moo"/牛/哞哞; a duck/"quack"/鸭子/嘎嘎;'
            'a sheep/"baa"/羊/咩咩; a bee/"buzz"/蜜蜂/嗡嗡; a frog/"croak"/青蛙/呱呱; a lion/"roar"/狮子/吼'
        ),
    ),
    Table(
        ask=(
            "[What is|What's|Tell me|Give me] the opposite of {x}[?|]",
            "[Which|What] word is the opposite of {x}?",
        ),
        answer=("The opposite of {x} is {y}.", "It is {y}."),
        zh_ask=("“{x}”的反义词是什么？", "{x}的反义词[是什么|]？"),
        zh_answer=("“{x}”的反义词是“{y}”。",),
        rows=rows(
            "hot/cold/热/冷; big/small/大/小; long/short/长/短; good/bad/好/坏; fast/slow/快/慢; day/night/白天/黑夜;"
            "up/down/上/下; left/right/左/右; old/new/旧/新; open/closed/开/关; light/dark/亮/暗; happy/sad/高兴/难过;"
            "full/empty/满/空; rich/poor/富/穷; early/late/早/晚; high/low/高/低; yes/no/是/否; hard/soft/硬/软;"
            "small/big/小/大; cold/hot/冷/热; slow/fast/慢/快; black/white/黑/白"
        ),
    ),
    Table(
        ask=("How many {x}?", "[Tell me how|Do you know how] many {x}[.|?]"),
        answer=("{y}.", "The answer is {y}.", "There are {y}."),
        zh_ask=("{x}？",),
        zh_answer=("{y}。", "答案是{y}。"),
        rows=rows(
            "days are in a week/seven/一周有几天/七天; days are there in a week/seven/一星期有多少天/七天;"
            "months are in a year/twelve/一年有几个月/十二个月; hours are in a day/twenty-four/一天有多少小时/二十四小时;"
            "minutes are in an hour/sixty/一小时有多少分钟/六十分钟; seconds are in a minute/sixty/一分钟有多少秒/六十秒;"
            "legs does a dog have/four/狗有几条腿/四条; legs does a spider have/eight/蜘蛛有几条腿/八条;"
            "legs does an insect have/six/昆虫有几条腿/六条; wheels does a car have/four/汽车有几个轮子/四个;"
            "fingers are on a hand/five/一只手有几根手指/五根; letters are in the English alphabet/twenty-six/英文有多少个字母/二十六个;"
            "planets are in the solar system/eight/太阳系有几大行星/八个; weeks are in a year/fifty-two/一年有多少周/五十二周;"
            "days are in a year/three hundred and sixty-five/一年有多少天/三百六十五天; seasons are there/four/一年有几个季节/四个"
        ),
    ),
    Table(
        ask=(
            "[How do you say|What is|Translate] {x} in[to|] Chinese[?|.|]",
            "What is the Chinese word for {x}?",
        ),
        answer=("In Chinese it is {y}.", '"{x}" is {y} in Chinese.', "{y}"),
        zh_ask=("“{x}”用英文怎么说？", "{x}的英文是什么？", "把“{x}”翻译成英文。"),
        zh_answer=("“{x}”的英文是 {y}。", "{y}"),
        rows=rows(
            "hello/你好/你好/hello; thank you/谢谢/谢谢/thank you; goodbye/再见/再见/goodbye; water/水/水/water;"
            "cat/猫/猫/cat; dog/狗/狗/dog; good morning/早上好/早上好/good morning; friend/朋友/朋友/friend;"
            "apple/苹果/苹果/apple; book/书/书/book; sun/太阳/太阳/sun; moon/月亮/月亮/moon; one/一/一/one; two/二/二/two;"
            "tea/茶/茶/tea; I love you/我爱你/我爱你/I love you; yes/是/是/yes; good night/晚安/晚安/good night"
        ),
    ),
    Table(
        ask=(
            "What is {x}?",
            "[Explain|Tell me] what {x} is[.|]",
            "[Can you explain|Do you know] what {x} is?",
            "Define {x}[.|]",
        ),
        answer=("{y}",),
        zh_ask=("[什么是{x}|{x}是什么]？", "[请|]解释一下{x}。"),
        zh_answer=("{y}",),
        rows=rows(
            "a language model/A language model is a program that has learned from text which words follow which, and so can write answers./语言模型/语言模型是从文字中学会接下来该写什么的程序。;"
            "a computer/A computer is a machine that follows programs: it reads, calculates and stores data./电脑/电脑是按程序工作的机器，能读取、计算和保存数据。;"
            "an API/An API is an agreed way for one program to ask another for something./API/API 是程序之间约定好的调用方式。;"
            "Python/Python is a programming language that is easy to read. OpsGPT Serve is written in it./Python/Python 是一种易读的编程语言，OpsGPT Serve 就是用它写的。;"
            "JSON/JSON is a text format for data, made of objects, lists, strings and numbers./JSON/JSON 是一种数据的文本格式。;"
            "a GPU/A GPU is a processor that does many small calculations at once, which large models like./GPU/GPU 是能同时做很多计算的处理器，大模型喜欢它。;"
            "a token/A token is a piece of text, often a word or a part of one. Models read and write tokens./token/token 是一小段文字，模型读写的就是 token。;"
            "GGUF/GGUF is the file format in which llama.cpp keeps a model./GGUF/GGUF 是 llama.cpp 保存模型的文件格式。;"
            "llama.cpp/llama.cpp is a program that runs language models, also on a plain CPU. I run on it./llama.cpp/llama.cpp 是运行语言模型的程序，普通 CPU 也行。;"
            "vLLM/vLLM is an engine that serves large models fast, mostly on GPUs./vLLM/vLLM 是快速运行大模型的引擎，多用在 GPU 上。;"
            "RAG/RAG means that a model first looks up documents and then answers from what they say./RAG/RAG 就是先查资料，再根据资料回答。;"
            "a prompt/A prompt is the text that a model is given, such as your question./提示词/提示词就是给模型的文字，例如你的问题。;"
            "an embedding/An embedding is a list of numbers that stands for the meaning of a text./向量/向量是表示文字含义的一串数字。;"
            "the sun/The sun is a star. It gives the earth light and warmth./太阳/太阳是一颗恒星，给地球带来光和热。;"
            "the moon/The moon goes round the earth and shines with the light of the sun./月亮/月亮绕着地球转，反射太阳的光。;"
            "water/Water is what rivers and seas are made of. We all need to drink it./水/水组成了河流和大海，我们都要喝水。;"
            "a cat/A cat is a small animal with soft fur that likes to sleep and to catch mice./猫/猫是一种小动物，毛很软，喜欢睡觉和抓老鼠。;"
            "a port/A port is a number under which a program on a machine can be reached, such as 8888./端口/端口是一个数字，通过它可以找到机器上的程序，例如 8888。;"
            "a server/A server is a program or machine that answers the requests of others./服务器/服务器是回答别人请求的程序或机器。;"
            "the internet/The internet is a network that joins computers all over the world./互联网/互联网把全世界的电脑连在一起。"
        ),
    ),
)


def fact(rng: random.Random, voice: Voice) -> list[Exchange]:
    """One row of one table, asked and told."""
    table = rng.choices(TABLES, [len(table.rows) for table in TABLES])[0]
    x, y, zh_x, zh_y = rng.choice(table.rows)
    ask_x = zh_x if voice.ask == "zh" else x
    ask = reworded(
        pick(by_language(voice.ask, table.ask, table.zh_ask), rng, x=ask_x), rng, voice.ask
    )
    if voice.brief:
        return [Exchange(ask, (zh_y if voice.answer == "zh" else y))]
    if voice.answer == "zh":
        return [Exchange(ask, pick(table.zh_answer, rng, x=zh_x, y=zh_y))]
    answer = pick(table.answer, rng, x=x, y=y)
    return [Exchange(ask, answer[0].upper() + answer[1:])]
