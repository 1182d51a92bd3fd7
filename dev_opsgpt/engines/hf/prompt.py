"""How a chat request is put to the model: the prompt, the grammar, and who reads the answer."""

from typing import Any

import msgspec

from dev_opsgpt.engines.asked_schema import answer_schema
from dev_opsgpt.engines.call_grammar import HeldCalls
from dev_opsgpt.engines.forced_tools import (
    CallReader,
    Places,
    WholeCall,
    call_schema,
    parameters_of,
    places_of,
)
from dev_opsgpt.engines.hf.params import Defaults, stops_of
from dev_opsgpt.engines.hf.template import ChatTemplate
from dev_opsgpt.engines.json_or_calls import JsonOrCalls
from dev_opsgpt.engines.tag_grammar import expressible
from dev_opsgpt.engines.template_messages import callable_tools
from dev_opsgpt.engines.text_formats.choose import reader_of
from dev_opsgpt.engines.text_formats.form import PLAIN, THINK, Form
from dev_opsgpt.engines.text_reader import JsonReader, TextReader
from dev_opsgpt.protocol.errors import Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, Tool


class Prompt(msgspec.Struct):
    """A prompt as text. ``held`` is what the answer is held to, a schema, calls or a choice of
    both, and ``param`` the field that asks for it; ``tools`` are those of the calls that are held
    to something. ``thinking`` says that the prompt opens reasoning, and ``think`` are the tags
    around it."""

    text: str
    reader: TextReader
    stops: list[str]
    held: dict[str, Any] | HeldCalls | JsonOrCalls | None = None
    param: str = ""
    tools: Places = []
    thinking: bool = False
    think: tuple[str, str] = THINK


def prompt_of(request: ChatRequest, template: ChatTemplate, defaults: Defaults) -> Prompt:
    """The prompt of a request. Raises ``InvalidRequest`` or ``Unsupported``.

    Where a grammar holds the answer the model does not reason first: the grammar begins with the
    first token.
    """
    options = {**defaults.template, **(request.chat_template_kwargs or {})}
    stops = [*stops_of(request, defaults), *template.stops]
    if request.must_call:
        return _forced(request, template, options)
    if request.response_format is not None and request.response_format.type != "text":
        return _json(request, template, options, stops)
    text = template.render(request, options)
    form = template.form
    thinking = text.rstrip().endswith(form.think[0])
    parallel = request.parallel_tool_calls is not False
    reader = reader_of(form, callable_tools(request), thinking=thinking, parallel=parallel)
    found = Prompt(text, reader, stops, thinking=thinking, think=form.think)
    strict = [place for place in places_of(request) if place[0].function.strict]
    if strict and form.exact:
        found.held, found.param, found.tools = _strict(request, form), "tools", strict
    return found


def _forced(request: ChatRequest, template: ChatTemplate, options: dict[str, Any]) -> Prompt:
    chosen = places_of(request)
    form = template.form
    text = _without_reasoning(request, template, options)
    schemas = [parameters_of(tool, path) for tool, path in chosen]
    tags = form.tagged
    # Stop strings could only break off what the request insists on.
    if not form.call or (tags and not all(expressible(one, tags) for one in schemas)):
        return Prompt(text, CallReader(), [], call_schema(chosen), "tools", chosen)
    text += form.forced
    heads = {_head(form, form.forced, tool): tool.function.name for tool, _ in chosen}
    calls = HeldCalls(list(heads), schemas)
    reader: TextReader = CallReader(heads)
    if tags is not None:
        calls = HeldCalls(list(heads), schemas, end=_end(form), tags=tags)
        reader = WholeCall(reader_of(form, callable_tools(request)), form.forced)
    return Prompt(text, reader, [], calls, "tools", chosen)


def _strict(request: ChatRequest, form: Form) -> HeldCalls:
    """Calls that the model may make: once it has begun one, a strict tool's schema holds it."""
    places, (trigger, *_) = places_of(request), form.opens
    return HeldCalls(
        [_head(form, trigger, tool) for tool, _ in places],
        [
            parameters_of(tool, path) if tool.function.strict else {"type": "object"}
            for tool, path in places
        ],
        end=_end(form),
        trigger=trigger,
    )


def _end(form: Form) -> str:
    """What stands behind the arguments of a call."""
    return form.call.partition("{arguments}")[2]


def _head(form: Form, begun: str, tool: Tool) -> str:
    """What leads to the arguments of a call that has ``begun``."""
    head = form.call.removeprefix(begun).partition("{arguments}")[0]
    return head.replace("{name}", tool.function.name)


def _json(
    request: ChatRequest, template: ChatTemplate, options: dict[str, Any], stops: list[str]
) -> Prompt:
    schema = answer_schema(request)
    text = _without_reasoning(request, template, options)
    tools = places_of(request)
    if not tools or template.form is PLAIN:
        text += template.form.direct
        return Prompt(text, JsonReader(), stops, schema, "response_format")
    choice = JsonOrCalls(schema, tools, template.form, request.parallel_tool_calls is not False)
    if not choice.possible:
        raise Unsupported(
            "With this model 'response_format' cannot be combined with these tools: an answer "
            "cannot be held to its form of their calls.",
            param="response_format",
        )
    return Prompt(text, choice.reader(), stops, choice)


def _without_reasoning(
    request: ChatRequest, template: ChatTemplate, options: dict[str, Any]
) -> str:
    """The prompt of an answer that begins at once: by the template's own switch, else the
    reasoning that the prompt opens is closed again."""
    text = template.render(request, {**options, "enable_thinking": False})
    start, end = template.form.think
    return f"{text}\n{end}\n\n" if text.rstrip().endswith(start) else text
