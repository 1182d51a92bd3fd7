"""Chat templates of other models' makings: what they are given, and what they refuse."""

from typing import Any

import pytest

from dev_opsgpt.engines.hf.params import Defaults
from dev_opsgpt.engines.hf.prompt import prompt_of
from dev_opsgpt.engines.hf.template import LINES_STOP, ChatTemplate
from dev_opsgpt.engines.text_formats.deepseek import DEEPSEEK
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.listed import PIPES
from dev_opsgpt.engines.text_formats.qwen_coder import QWEN_CODER
from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported

from ..answers import ADD, WEATHER, chat
from .tiny import tiny_tokenizer
from .tokenizers import sentence_piece

ROLES = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
# Arguments as text, as DeepSeek's template takes them, and as an object, as most do.
AS_TEXT = (
    ROLES + "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{{ '<call>' + c.function.arguments }}{% endfor %}{% endfor %}{{ tools }}"
)
AS_OBJECT = AS_TEXT.replace("c.function.arguments", "(c.function.arguments | tojson)")
PICKY = (
    ROLES + "{% for m in messages %}{% if m.tool_call_id and m.tool_call_id | length != 9 %}"
    "{{ raise_exception('ids have nine letters') }}{% endif %}{% endfor %}[TOOL_CALLS]{{ tools }}"
)
THINKS = (
    ROLES + "[assistant]{% if enable_thinking is defined and not enable_thinking %}<think>\n\n"
    "</think>\n\n{% else %}<think>\n{% endif %}"
)
ALWAYS_THINKS = ROLES + "[assistant]<think>\n"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
HISTORY = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "5"},
]


def template(text: str | None) -> ChatTemplate:
    return ChatTemplate(tiny_tokenizer(template=text))


def render(text: str | None, content: Any = "hi", **fields: Any) -> str:
    return template(text).render(chat(content, **fields), {})


def test_roles_and_parts() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert render(ROLES, messages=messages) == "[system]be brief[user]a\nb"
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(Unsupported) as error:
        render(ROLES, [image])
    assert error.value.param == "messages.0.content.0"


@pytest.mark.parametrize("text", [AS_TEXT, AS_OBJECT])
def test_arguments_of_earlier_calls(text: str) -> None:
    assert '<call>{"a": 1}' in render(text, messages=HISTORY)


def test_arguments_that_are_no_json() -> None:
    call = {**CALL, "function": {"name": "f", "arguments": "{"}}
    with pytest.raises(InvalidRequest) as error:
        render(AS_OBJECT, messages=[{"role": "assistant", "tool_calls": [call]}])
    assert error.value.param == "messages.0.tool_calls.0.function.arguments"


def test_ids_that_a_template_would_refuse() -> None:
    assert template(PICKY).form.short_ids
    assert "[tool]5" in render(PICKY, messages=HISTORY)


def test_tools_are_shown() -> None:
    assert template(AS_OBJECT).shows_tools
    assert not template(ROLES).shows_tools
    tools = [ADD, WEATHER]
    assert "get_weather" in render(AS_OBJECT, tools=tools)
    assert "get_weather" not in render(AS_OBJECT, tools=tools, tool_choice="none")
    named = {"type": "function", "function": {"name": "add"}}
    assert "get_weather" not in render(AS_OBJECT, tools=tools, tool_choice=named)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('no systems here') }}", "no systems here"),
        ("{{ messages[0].content.nothing.at_all }}", "nothing"),
        ("{{ 1 / 0 }}", "zero"),
        ("{% for %}", "Expected"),
        ("{{ [].append.__globals__ }}", "unsafe"),
    ],
)
def test_what_a_template_refuses(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        render(text)
    assert error.value.param == "messages"
    assert reason in error.value.message


def test_options_of_the_template() -> None:
    own = template("{{ mood }}{{ messages | length }}")
    assert own.render(chat(), {"mood": "glad"}) == "glad1"
    for name in ("messages", "tools", "add_generation_prompt", "tokenize"):
        with pytest.raises(InvalidRequest) as error:
            own.render(chat(), {name: []})
        assert error.value.param == f"chat_template_kwargs.{name}"


def test_a_model_without_a_template() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    chatml = (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(None, messages=messages) == chatml
    lines = ChatTemplate(sentence_piece())
    assert lines.render(chat(messages=messages), {}) == "s\n\nUser: u\n\nAssistant:"
    assert prompt_of(chat(stop="x"), lines, Defaults()).stops == ["x", LINES_STOP]


def test_reasoning_is_opened_by_the_prompt_or_switched_off() -> None:
    reads = prompt_of(chat(), template(THINKS), Defaults())
    assert reads.reader.reasoning
    off = chat(chat_template_kwargs={"enable_thinking": False})
    assert not prompt_of(off, template(THINKS), Defaults()).reader.reasoning
    by_default = Defaults(template={"enable_thinking": False})
    assert not prompt_of(chat(), template(THINKS), by_default).reader.reasoning


@pytest.mark.parametrize("text", [THINKS, ALWAYS_THINKS])
@pytest.mark.parametrize(
    "fields",
    [{"response_format": {"type": "json_object"}}, {"tools": [ADD], "tool_choice": "required"}],
)
def test_a_grammar_goes_without_reasoning(text: str, fields: dict[str, Any]) -> None:
    found = prompt_of(chat(**fields), template(text), Defaults())
    assert "</think>" in found.text.rpartition("[assistant]")[2]
    assert found.held is not None


def test_several_templates() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": ROLES, "tool_use": AS_OBJECT}
    own = ChatTemplate(tokenizer)
    assert own.shows_tools
    assert own.render(chat(), {}) == "[user]hi"
    assert "get_weather" in own.render(chat(tools=[WEATHER]), {})


def test_tools_of_a_template_that_knows_none() -> None:
    own = template(ROLES)
    assert own.form is HERMES
    shown = own.render(chat(tools=[WEATHER, ADD]), {})
    assert shown.startswith("[user]You can call these tools:\n{")
    assert "get_weather" in shown
    assert shown.endswith("</tool_call>\n\nhi")
    system = [{"role": "system", "content": "be brief"}, *HISTORY, HISTORY[-1]]
    told = own.render(chat(messages=system, tools=[ADD]), {})
    assert told.startswith("[system]be brief\n\nYou can call")
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    result = "<tool_response>\n5\n</tool_response>"
    assert told.endswith(f"[user]hi[assistant]{call}[user]{result}\n{result}")
    assert own.render(chat(tools=[ADD], tool_choice="none"), {}) == "[user]hi"


def test_tools_of_a_template_that_knows_calls_but_shows_none() -> None:
    native = AS_TEXT.replace("{{ tools }}", "").replace("'<call>'", "'<｜tool▁calls▁begin｜>'")
    own = template(native)
    assert own.form is DEEPSEEK
    assert not own.shows_tools
    told = own.render(chat(messages=HISTORY, tools=[ADD]), {})
    assert told.startswith("[user]You can call these tools:\n{")
    assert "<｜tool▁sep｜>an object" in told
    assert told.endswith('[tool]5<｜tool▁calls▁begin｜>{"a": 1}')


ITEMS = (
    ROLES + "{% for m in messages %}{% for c in m.tool_calls or [] %}<tool_call><function="
    "{% for k, v in c.function.arguments.items() %}{{ k }}:{{ v }};{% endfor %}"
    "{% endfor %}{% endfor %}{{ tools }}"
)
"""Arguments by their names, as the templates of Qwen3-Coder and GLM write them."""
CALLS_INSIDE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name + (c.function.arguments | tojson) }}{% endfor %}{% endfor %}{{ tools }}"
)
FIRST_ONLY = CALLS_INSIDE.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
ONE_ONLY = (
    "{% for m in messages if m.tool_calls and m.tool_calls | length > 1 %}"
    "{{ raise_exception('one at a time') }}{% endfor %}" + CALLS_INSIDE
)
SHOWS_NO_CALLS = ROLES + "respond with <|tool_call|>{{ tools }}"
SEVERAL = [
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": "I see.",
        "tool_calls": [CALL, {**CALL, "id": "2", "function": {"name": "g", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "2", "content": "six"},
    {"role": "tool", "tool_call_id": "call_1", "content": "5"},
    {"role": "user", "content": "more"},
]


def test_arguments_by_their_names() -> None:
    assert "<function=a:1;" in render(ITEMS, messages=HISTORY)
    assert template(ITEMS).form is QWEN_CODER


@pytest.mark.parametrize("text", [FIRST_ONLY, ONE_ONLY])
def test_a_template_that_shows_one_call_of_a_message(text: str) -> None:
    shown = render(text, messages=SEVERAL)
    calls = '[assistant]I see.f{"a": 1}[tool]5[assistant]g{}[tool]six'
    assert shown.startswith(f"[user]hi{calls}[user]more")


def test_a_template_that_shows_tools_and_no_calls() -> None:
    own = template(SHOWS_NO_CALLS)
    assert own.form is PIPES
    assert own.shows_tools
    told = own.render(chat(messages=HISTORY, tools=[ADD]), {})
    call = '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|/tool_call|>'
    assert f"[user]hi[assistant]{call}[tool]5" in told


def test_a_template_that_fails_over_calls() -> None:
    refuses = (
        "{% for m in messages if m.tool_calls or m.role == 'tool' %}"
        "{{ raise_exception('no tools') }}{% endfor %}" + ROLES + "{{ tools }}"
    )
    told = render(refuses, messages=HISTORY)
    assert "[assistant]<tool_call>" in told
    assert "[user]<tool_response>\n5" in told


@pytest.mark.parametrize(
    "text",
    [
        "{% for t in tools or [] %}{{ t.function.description + t.function.name }}{% endfor %}",
        "{% for t in tools or [] %}{{ t.function.name }}"
        "{% for k, p in t.function.parameters.properties.items() %}"
        "{{ k + p.type + p.description }}{% endfor %}{% endfor %}",
    ],
)
def test_what_a_template_asks_for_of_tools(text: str) -> None:
    assert "add" in render(text + ROLES, tools=[ADD])
    render(text + ROLES, tools=[{"type": "function", "function": {"name": "now"}}])


def test_a_template_that_cannot_do_without_a_list_of_tools() -> None:
    assert render("{% for t in tools %}{{ t }}{% endfor %}" + ROLES) == "[user]hi"


def test_reasoning_that_a_template_does_not_take() -> None:
    text = "{% for m in messages if m.reasoning_content %}{{ raise_exception('no') }}{% endfor %}"
    messages = [*HISTORY[:1], {"role": "assistant", "content": "yes", "reasoning_content": "hm"}]
    assert render(text + ROLES, messages=messages) == "[user]hi[assistant]yes"


def test_tools_that_a_template_looks_for_elsewhere() -> None:
    own = template("{% for m in messages %}{{ m.tools }}[{{ m.role }}]{{ m.content }}{% endfor %}")
    assert not own.shows_tools
    assert "get_weather" in own.render(chat(tools=[WEATHER]), {})
