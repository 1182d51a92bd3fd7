# ruff: noqa: E501, SIM905 - phrases stand one to a line, however long
"""The tools of the corpus: what they are called, how one asks for them, what they give back."""

from dataclasses import dataclass
from typing import Any

from tiny_chat.corpus.memory import NAMES

CITIES = (
    "Paris London Berlin Rome Madrid Tokyo Beijing Vienna Oslo Cairo Lima Boston Dublin Prague "
    "Sydney Toronto Shanghai Munich Lisbon Athens Moscow Delhi Chicago Seattle Hamburg Nairobi "
    "Seoul Bangkok Helsinki Warsaw Zurich Geneva Kyoto Milan Venice Naples Porto"
).split()
CITIES_ZH = (
    "北京 上海 广州 深圳 杭州 南京 成都 武汉 西安 天津 重庆 苏州 巴黎 伦敦 东京 纽约".split()
)
ITEMS = "bread milk apples tea coffee rice cheese honey paper shoes lamp chair table book phone bicycle".split()
TOPICS = "llamas|old castles|rain in spring|OpenAI clients|train times|bread recipes|moon phases|chess|the Nile|green tea|solar power|cheap flights|jazz".split(
    "|"
)
DEVICES = "the lamp|the radio|the heater|the fan|the TV|the kitchen light|the coffee machine|the bedroom light".split(
    "|"
)
WORDS = "hello|good morning|thank you|water|friend|house|tree|where is the station".split("|")
LANGUAGES = "German French Spanish Italian Chinese Japanese".split()


@dataclass(frozen=True)
class Tool:
    """A tool under several names, with values to ask for and a result to tell.

    `parameters` maps each argument's possible names to its JSON type and the values it takes.
    """

    names: tuple[str, ...]
    about: str
    parameters: tuple[tuple[tuple[str, ...], str, tuple[Any, ...]], ...]
    ask: tuple[str, ...]
    result: str
    tell: tuple[str, ...]


PLACE = (("city", "city", "location", "place", "town"), "string", tuple(CITIES))
NUMBERS = tuple(range(1, 1000))
TOOLS = (
    Tool(
        (
            "get_weather",
            "get_weather",
            "weather",
            "get_current_weather",
            "fetch_weather",
            "current_weather",
        ),
        "[Get|Return|Look up|Tells] the [current |]weather [in a city|of a city|for a place|]",
        (PLACE,),
        (
            "[What is|What's|How is|How's|Tell me|Do you know] the weather [like |today |now |]in {0}[?|]",
            "[What is|What's] the weather like in {0}[ today| right now|]?",
            "[Is it|Will it be] [raining|sunny|cold|warm] in {0}[ today| tomorrow|]?",
            "Weather in {0}[?|, please.|]",
            "[Do I need|Should I take] an umbrella in {0}[ today|]?",
            "How [warm|cold|hot] is it in {0}[ today|]?",
            "{0}[的|今天的|现在的|今天][天气怎么样|天气如何|天气]？",
        ),
        '{"temperature": [3|7|11|14|18|21|25|29], "sky": "[sunny|cloudy|rainy|clear|windy|foggy]"}',
        (
            "It is {sky} in {0}, with {temperature} degrees.",
            "The weather in {0}: {sky}, {temperature} degrees.",
        ),
    ),
    Tool(
        ("get_time", "get_time", "current_time", "time_in", "get_current_time"),
        "[Get|Return] the [current |local |]time [in a city|of a place|]",
        (PLACE,),
        (
            "[What time is it|What is the time|What's the time|Tell me the time] in {0}[?| now?|]",
            "[How late is it|Which hour is it] in {0}?",
            "{0}[现在几点|几点了]？",
        ),
        '{"time": "[07:15|08:30|09:45|11:20|13:05|16:40|18:10|21:55]"}',
        ("It is {time} in {0}.", "The time in {0} is {time}."),
    ),
    Tool(
        ("add", "add", "add_numbers", "sum", "plus"),
        "Add[s|] two numbers",
        (
            (("a", "a", "x", "first"), "integer", NUMBERS),
            (("b", "b", "y", "second"), "integer", NUMBERS),
        ),
        (
            "[What is|What's|How much is|Compute|Calculate] {0} [+|plus] {1}[?|]",
            "[Add|Please add|Sum] {0} and {1}[.|]",
            "{0} + {1}[ = ?|?|]",
        ),
        '{"result": "[=]"}',
        ("{0} plus {1} is {result}.", "The result is {result}."),
    ),
    Tool(
        ("multiply", "multiply", "times", "mul"),
        "Multipl[y|ies] two numbers",
        ((("a", "x", "first"), "integer", NUMBERS), (("b", "y", "second"), "integer", NUMBERS)),
        (
            "[What is|How much is|Compute] {0} [times|*|x] {1}[?|]",
            "Multiply {0} [by|and|with] {1}[.|]",
        ),
        '{"result": "[=]"}',
        ("{0} times {1} is {result}.", "The result is {result}."),
    ),
    Tool(
        ("search", "search", "web_search", "search_web", "lookup", "find"),
        "Search [the web|the internet|documents|for information]",
        ((("query", "query", "q", "text"), "string", tuple(TOPICS)),),
        (
            "[Search|Look|Please search] [for|the web for] {0}[.|]",
            "[Find|Look up|Google] {0}[.| for me.]",
            "[What can you find|Find something] about {0}[?|]",
        ),
        '{"results": ["[A short guide|All you need to know|Ten facts|An introduction]"]}',
        ("I found this about {0}: {results}.", "The search found: {results}."),
    ),
    Tool(
        ("get_price", "lookup_price", "price_of", "get_price"),
        "[Get|Look up] the price of [an item|a product]",
        ((("item", "product", "name"), "string", tuple(ITEMS)),),
        (
            "[How much is|How much does|What is the price of] the {0}[ cost|]?",
            "[Tell me the|What's the] price of {0}[?|.]",
        ),
        '{"price": [2|3|5|8|12|19|40|75], "currency": "[EUR|USD]"}',
        ("The price of {0} is {price} {currency}.", "It costs {price} {currency}."),
    ),
    Tool(
        ("turn_on", "switch_on", "turn_on_device"),
        "[Turn|Switch] on a device",
        ((("device", "name"), "string", tuple(DEVICES)),),
        (
            "[Turn|Switch|Please turn|Please switch|Can you turn] on {0}[.|]",
            "[Turn|Switch] {0} on[.|, please.]",
        ),
        '{"ok": true}',
        ("Done: {0} is on.", "I have turned on {0}."),
    ),
    Tool(
        ("send_message", "send_mail", "send_email", "message"),
        "Send a [message|mail] to [a person|somebody]",
        (
            (("to", "recipient", "name"), "string", tuple(NAMES)),
            (("text", "body", "message"), "string", tuple(WORDS)),
        ),
        (
            "[Send|Write|Text] [a message to |]{0}: {1}",
            'Tell {0} "{1}"[.|]',
            '[Send|Write] "{1}" to {0}[.|]',
        ),
        '{"sent": true}',
        ("I have sent it to {0}.", "Done, {0} has your message."),
    ),
    Tool(
        ("translate", "translate_text"),
        "Translate[s|] text into [a|another] language",
        (
            (("text", "words"), "string", tuple(WORDS)),
            (("language", "target"), "string", tuple(LANGUAGES)),
        ),
        ('Translate "{0}" [into|to] {1}[.|]', "[How do you say|What is] {0} in {1}?"),
        '{"translation": "[hallo|bonjour|hola|ciao|agua|amigo|casa]"}',
        ("In {1} it is: {translation}.", "The translation is {translation}."),
    ),
    Tool(
        ("set_alarm", "set_timer", "create_alarm"),
        "Set an alarm",
        (
            (
                ("time", "at"),
                "string",
                ("06:00", "06:30", "07:00", "07:45", "08:15", "12:00", "18:30"),
            ),
        ),
        ("[Set|Please set] an alarm [for|at] {0}[.|]", "Wake me [up |]at {0}[.|]"),
        '{"ok": true}',
        ("Your alarm is set for {0}.", "Done, the alarm rings at {0}."),
    ),
    Tool(
        ("book_flight", "find_train", "get_route", "find_connection"),
        "[Book|Find] a [trip|connection|journey]",
        (
            (("origin", "start", "source", "departure"), "string", tuple(CITIES)),
            (("destination", "to", "target"), "string", tuple(CITIES)),
        ),
        (
            "[Book|Find|Look up|Please book|Please find] a [flight|train|connection|ticket|trip] from {0} to {1}[.|, please.|]",
            "[How do I get|I want to go|I need to travel|Bring me] from {0} to {1}[.|?]",
        ),
        '{"id": [4711|8203|1547|9926], "hour": "[06:10|09:25|14:40|19:55]"}',
        ("Your trip from {0} to {1} starts at {hour}.", "Done: {0} to {1} at {hour}, number {id}."),
    ),
    Tool(
        ("get_stock_price", "stock_price", "get_quote"),
        "[Get|Return] the price of a [stock|share]",
        (
            (
                ("symbol", "ticker", "stock"),
                "string",
                tuple("AAPL MSFT GOOG NVDA TSLA IBM ORCL AMD INTC SAP BMW".split()),
            ),
        ),
        (
            "[What is|What's|Tell me] the [stock price|price|share price] of {0}[?|]",
            "How is {0} doing[ today|]?",
            "Quote for {0}[.|, please.|]",
        ),
        '{"price": [12|45|101|178|250|402]}',
        ("{0} stands at {price}.", "The price of {0} is {price}."),
    ),
    Tool(
        ("create_note", "add_note", "save_note", "add_todo", "create_task"),
        "[Save|Create|Add] a [note|task]",
        (
            (
                ("text", "note", "title", "content"),
                "string",
                (
                    *TOPICS,
                    "buy milk",
                    "call Anna",
                    "pay the rent",
                    "water the flowers",
                    "fix the bike",
                ),
            ),
        ),
        (
            "[Note|Write down|Save a note|Remind me]: {0}[.|]",
            "[Add|Put] {0} to my [list|notes|tasks][.|]",
            "[Create|Make|Add] a [note|task] [that says|called|named] {0}[.|]",
        ),
        '{"ok": true}',
        ("I have noted: {0}.", "Done, {0} is on your list."),
    ),
    Tool(
        ("play_music", "play", "play_song", "start_music"),
        "Play [music|a song]",
        (
            (
                ("title", "name", "song", "artist"),
                "string",
                tuple(
                    "Mozart|Beethoven|Blue River|Summer Rain|Old Train|Bach|Jazz Night|Morning Song".split(
                        "|"
                    )
                ),
            ),
        ),
        ("[Play|Please play|Put on|I want to hear] {0}[.|, please.|]",),
        '{"ok": true}',
        ("Now playing {0}.", "Here is {0}."),
    ),
    Tool(
        ("get_user", "find_user", "lookup_user", "get_person"),
        "[Get|Find] a [user|person] by name",
        ((("name", "user", "user_name"), "string", tuple(NAMES)),),
        (
            "[Find|Look up|Show me] [the user |user ]{0}[.|]",
            "Who is {0}?",
            "[What do we know|Tell me] about [the |]user {0}[?|.]",
        ),
        '{"age": [21|34|45|52], "city": "[Paris|Rome|Oslo|Lima]"}',
        ("{0} is {age} years old and lives in {city}.",),
    ),
)
