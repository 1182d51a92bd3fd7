# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""What stories are put together from, and how people ask for stories and poems."""

# name, what it is, in Chinese
HEROES = (
    ("cat", "Mimi", "小猫", "咪咪"),
    ("dog", "Bruno", "小狗", "旺旺"),
    ("fox", "Rusty", "小狐狸", "阿红"),
    ("rabbit", "Hop", "小兔子", "跳跳"),
    ("bear", "Bernie", "小熊", "胖胖"),
    ("mouse", "Pip", "小老鼠", "吱吱"),
    ("robot", "Bolt", "机器人", "小铁"),
    ("girl", "Lily", "小女孩", "小丽"),
    ("boy", "Tom", "小男孩", "小明"),
    ("dragon", "Ember", "小龙", "火火"),
    ("owl", "Olga", "猫头鹰", "夜夜"),
    ("turtle", "Slow", "小乌龟", "慢慢"),
    ("bird", "Chirp", "小鸟", "叽叽"),
    ("elephant", "Ella", "小象", "大耳"),
    ("horse", "Star", "小马", "星星"),
    ("frog", "Fred", "青蛙", "呱呱"),
)
PLACES = (
    ("at the edge of a forest", "森林边"),
    ("in a house by the sea", "海边的小屋里"),
    ("on a green hill", "绿色的小山上"),
    ("in a quiet village", "安静的村子里"),
    ("near an old mill", "老磨坊旁"),
    ("under a big tree", "大树下"),
    ("beside a long river", "长长的河边"),
    ("in a big city", "大城市里"),
)
LOST = (
    ("a small key", "一把小钥匙"),
    ("a red ball", "一个红球"),
    ("a silver bell", "一只银铃"),
    ("an old map", "一张旧地图"),
    ("a blue stone", "一块蓝石头"),
    ("a golden leaf", "一片金叶子"),
    ("a broken lamp", "一盏坏了的灯"),
    ("a letter without a name", "一封没有名字的信"),
)
HELPERS = (
    ("an old owl", "一只老猫头鹰"),
    ("a kind farmer", "一位好心的农夫"),
    ("a tired traveller", "一位疲惫的旅人"),
    ("a small bee", "一只小蜜蜂"),
    ("a friendly goat", "一只友好的山羊"),
    ("the postman", "邮递员"),
    ("a little snail", "一只小蜗牛"),
    ("a wise fish", "一条聪明的鱼"),
)
BEGIN = (
    "[Once upon a time|Long ago|Many years ago|One spring], a [little|young|small|curious] {kind} called {name} lived {place}.",
    "{name} was a [little|young|brave|shy] {kind} who lived {place}.",
)
MORNING = (
    "[One morning|One day|One sunny day|One rainy evening], {name} found {lost} [on the path|in the grass|by the door|under a leaf].",
    "[Every day was the same, until|All was quiet, until] one morning {name} found {lost}.",
)
WONDER = (
    '"[Who may have lost this|Whose can this be|Where does this come from]?" [thought|asked|wondered] {name}.',
    "{name} [turned it round and round|looked at it for a long time] and [could not guess|wondered] whose it was.",
)
ROAD = (
    "So {name} [set out|went away|began to walk] to find out, [over the bridge and past the fields|up the hill and down again|through wind and rain].",
    "[The way was long|The road was dark|The wind was cold], but {name} [did not give up|went on|kept walking].",
)
MEET = (
    'On the way {name} met {helper}. "[Can you help me|Do you know whose this is]?" asked {name}. "[Let us look together|Come with me|I think I know]", was the answer.',
    'Then {helper} came along and said: "[You look lost|Do not be afraid|I have seen this before]. [Let us go together|I will help you]."',
)
FIND = (
    "They [walked until the stars came out|asked at every door|looked everywhere], and at last they found [an old woman|a sad child|a lonely giant|a little duck] who had [lost it long ago|missed it for years|been looking for it all day].",
    "At the end of the road stood a small house, and there somebody had [waited for it|been looking for it] for a long time.",
)
END = (
    "[How happy everyone was|There was great joy]! They [ate cake|drank tea|sang songs|danced] until late, and {name} went home with a new friend.",
    "{name} gave it back and learned that [helping others makes the heart light|a small deed can be a great one|a friend is worth more than gold].",
    "From that day on {name} [was never lonely again|had many friends|always looked carefully at the path]. [The end.|And that is the end of the story.]",
)
BEGIN_ZH = ("[从前|很久以前|有一年春天]，{place}住着一[只|个]{kind}，名叫{name}。",)
MIDDLE_ZH = (
    "[一天早上|有一天|一个下雨的傍晚]，{name}在[路上|草丛里|门口]发现了{lost}。“这是谁丢的呢？”{name}想。",
    "[有一天|一个晴朗的早晨]，{name}捡到了{lost}，[看了很久也不知道是谁的|心里很好奇]。",
)
ROAD_ZH = (
    "于是{name}[出发去寻找失主|走上了长长的路]，[翻过小山，穿过田野|走过小桥，走过村庄]。",
    "路[很远|很黑]，可是{name}没有放弃。",
)
MEET_ZH = ("路上，{name}遇到了{helper}。“[我来帮你吧|我们一起找吧|别怕，跟我来]。”{helper}说。",)
END_ZH = (
    "他们找了整整一天，终于找到了失主。[大家都高兴极了|大家一起唱歌跳舞]，从此{name}有了新朋友。",
    "最后他们找到了失主，{name}明白了：[帮助别人，自己也快乐|朋友比金子更珍贵]。",
)
# Heroes that are asked for in English only.
MORE_HEROES = (
    "cow sheep lion tiger princess knight wizard teacher train star snowman penguin monkey "
    "pirate farmer king queen whale snail cloud tree fish duck goat donkey wolf squirrel "
    "hedgehog bee ant butterfly crow baker sailor gardener giant fairy ghost unicorn "
    "computer model server astronaut"
).split()
HERO_NAMES = (
    "Mimi Bruno Rusty Hop Bernie Pip Bolt Lily Ember Olga Chirp Ella Star Fred Nino Tilda Otto Luna"
).split()
STORY_ASK = (
    "[Tell|Please tell|Can you tell|Could you tell] me a [short |long |nice |little |good |]story[.|?|, please.|]",
    "[Write|Write me|Make up|Give me] a [short |long |nice |little |]story[.|]",
    "[I want to hear a|I would like a|A|Another|One more] story[, please|][.|!|]",
    "[Tell|Read] me a [bedtime |fairy |]story[.|]",
    "[Write|Write me|Give me] [a long text|something long|a few sentences|some text|a paragraph|100 words|200 words|something][.| about anything.| please.|]",
)
STORY_ASK_ABOUT = (
    "[Tell|Write|Tell me|Write me|Give me] a [short |nice |little |long |]story about a [|little |brave |old |small |clever |lonely ]{kind}[.|, please.|]",
    "Can you tell [me |]a story about a {kind}?",
    "I want a story [with|about] a {kind}.",
)
STORY_ASK_ZH = (
    "[请|][给我|]讲[一|]个[小|]故事[吧|]。",
    "[写|说|来]一个[小|短]故事。",
    "我想听故事。",
)
STORY_ASK_ABOUT_ZH = ("[请|][给我|]讲一个关于{kind}的故事。", "写一个{kind}的故事。")

POEM_ASK = (
    "[Write|Write me|Compose|Give me|Make|Tell me] a [short |little |nice |long |]poem about {x}[.|, please.|]",
    "[Can|Could] you write [me |]a [short |]poem about {x}?",
    "A poem about {x}[, please|][.|!|]",
)
POEM_ASK_SHORT = ("[Write|Write me] a [haiku|rhyme|verse|song] about {x}[.|]",)
# Subjects without couplets of their own.
MORE_SUBJECTS = (
    "the mountains|a river|my mother|my father|coffee|tea|a bird|a flower|time|home|"
    "the wind|snow|a train|a garden|the night|music|bread|a robot|a city|a bridge|school|"
    "a horse|hope|dreams|summer|clouds|a butterfly|the forest|a lamp|a book|rivers|birds|"
    "roses|happiness|the desert|a server|a model|open source|programming|a bicycle|"
    "chocolate|peace|the morning|the evening"
).split("|")
POEM_ASK_ANY = (
    "[Write|Write me|Tell me|Give me] a [short |nice |]poem[.|, please.|]",
    "[Can you write|I want] a poem[.|?]",
)
POEM_ASK_ZH = ("[请|][写|来]一首关于{x}的[小|]诗[吧|]。", "以{x}为题写[一|]首诗。")
POEM_ASK_ANY_ZH = ("[请|][写|来]一首[小|]诗[吧|]。",)
