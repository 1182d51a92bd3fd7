"""How a chat request is put to the model: the prompt, the grammar, and who reads the answer."""

from typing import Any

import msgspec

from dev_opsgpt.engines.forced_tools import CallReader, Places, call_schema, places_of
from dev_opsgpt.engines.hf.params import Defaults, stops_of
from dev_opsgpt.engines.hf.template import ChatTemplate
from dev_opsgpt.engines.json_or_calls import JsonOrCalls
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.engines.text_reader import JsonReader, TextReader
from dev_opsgpt.protocol.openai import ChatRequest


class Prompt(msgspec.Struct):
    """A prompt as text. ``held`` is what the answer is held to: a schema, and ``param`` the field
    that asks for it, or a choice. ``tools`` are those of a call that must be made."""

    text: str
    reader: TextReader
    stops: list[str]
    held: dict[str, Any] | JsonOrCalls | None = None
    param: str = ""
    tools: Places = []


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
    names = {tool.function.name for tool in request.tools or []}
    reader = FormReader(
        template.form,
        set() if request.tool_choice == "none" else names,
        thinking=text.rstrip().endswith(template.form.think[0]),
        parallel=request.parallel_tool_calls is not False,
    )
    return Prompt(text, reader, stops)


def _forced(request: ChatRequest, template: ChatTemplate, options: dict[str, Any]) -> Prompt:
    chosen = places_of(request)
    schema = call_schema(chosen)
    text = _without_reasoning(request, template, options) + template.form.forced
    # Stop strings could only break off what the request insists on.
    return Prompt(text, CallReader(), [], schema, "tools", chosen)


def _json(
    request: ChatRequest, template: ChatTemplate, options: dict[str, Any], stops: list[str]
) -> Prompt:
    form = request.response_format.json_schema if request.response_format else None
    schema = {"type": "object"} if form is None else form.schema_
    text = _without_reasoning(request, template, options)
    tools = places_of(request)
    if not tools or not template.form.writings:
        return Prompt(text, JsonReader(), stops, schema, "response_format")
    parallel = request.parallel_tool_calls is not False
    choice = JsonOrCalls(schema, tools, template.form, parallel)
    return Prompt(text, choice.reader(), stops, choice)


def _without_reasoning(
    request: ChatRequest, template: ChatTemplate, options: dict[str, Any]
) -> str:
    """The prompt of an answer that begins at once: by the template's own switch, else the
    reasoning that the prompt opens is closed again."""
    text = template.render(request, {**options, "enable_thinking": False})
    start, end = template.form.think
    return f"{text}\n{end}\n\n" if text.rstrip().endswith(start) else text
