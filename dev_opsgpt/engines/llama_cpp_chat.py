"""How a chat request is put to llama.cpp: as a chat, or as a prompt with a grammar.

llama.cpp's own chat route reads reasoning and tool calls in the forms of many models. It does not
enforce ``tool_choice``, and breaks off answers that do not fit the form that it expects. So calls
that must be made, JSON answers, and Hermes-style tools go another way: the chat template is
rendered, the text is generated, and we read it.
"""

from typing import Any

import msgspec

from dev_opsgpt.engines.forced_tools import CallReader, call_schema
from dev_opsgpt.engines.llama_cpp_messages import messages_of, tools_of
from dev_opsgpt.engines.llama_cpp_schemas import SchemaCheck, fixed_spacing
from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.engines.text_formats.choose import form_of
from dev_opsgpt.engines.text_formats.form import THINK
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.engines.text_reader import JsonReader, PlainReader, TextReader
from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, Tool

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Plan(msgspec.Struct):
    """One call of llama.cpp: its route and body (less the sampling), and how to read its text."""

    route: str
    body: dict[str, Any]
    reader: TextReader


class ChatPlanner:
    """Makes plans for a loaded model with this chat template."""

    def __init__(self, server: LlamaServer, template: str) -> None:
        self._server = server
        self._schemas = SchemaCheck(server)
        # Marks of the other forms are special tokens, which llama.cpp does not show.
        self._hermes = form_of(template) is HERMES

    async def plan(self, request: ChatRequest) -> Plan:
        """The plan for a request. Raises ``InvalidRequest`` or ``Unsupported``."""
        if request.must_call:
            return await self._forced(request)
        if request.response_format is not None and request.response_format.type != "text":
            return await self._json(request)
        tools = tools_of(request)
        if tools and self._hermes:
            return await self._hermes_tools(request)
        if tools and request.logprobs:
            raise Unsupported(
                "This model gives no log probabilities where it has tools.", param="logprobs"
            )
        body: dict[str, Any] = {"messages": messages_of(request)}
        if request.chat_template_kwargs:
            body["chat_template_kwargs"] = request.chat_template_kwargs
        if tools:
            body["tools"] = tools
            body["parallel_tool_calls"] = request.parallel_tool_calls is not False
        return Plan(CHAT, body, PlainReader())

    async def prompt(self, request: ChatRequest, *, thinking: bool = True) -> str:
        """The messages and tools under the chat template. ``thinking`` False keeps models that
        reason first from doing so. Raises ``InvalidRequest`` for what the template refuses."""
        body: dict[str, Any] = {"messages": messages_of(request)}
        tools = tools_of(request)
        if tools:
            body["tools"] = tools
        options = dict(request.chat_template_kwargs or {})
        if not thinking:
            options["enable_thinking"] = False
        if options:
            body["chat_template_kwargs"] = options
        try:
            found = await self._server.post("/apply-template", body)
        except InvalidRequest as error:
            error.param = error.param or "messages"
            raise
        prompt = str(found["prompt"])
        if not thinking and prompt.rstrip().endswith(THINK[0]):
            prompt += f"\n{THINK[1]}\n\n"
        return prompt

    async def _forced(self, request: ChatRequest) -> Plan:
        chosen = [
            (tool, f"tools.{place}")
            for place, tool in enumerate(request.tools or [])
            if request.forced_tool in (None, tool.function.name)
        ]
        schema = _call_schema(chosen)
        await self._check_calls(schema, chosen)
        prompt = await self.prompt(request, thinking=False)
        if self._hermes:
            prompt += HERMES.forced
        return Plan(COMPLETIONS, {"prompt": prompt, "json_schema": schema}, CallReader())

    async def _check_calls(self, schema: dict[str, Any], chosen: list[tuple[Tool, str]]) -> None:
        try:
            await self._schemas.require(schema, "tools")
        except InvalidRequest:
            for pair in chosen:  # which of them is it?
                where = f"{pair[1]}.function.parameters"
                await self._schemas.require(_call_schema([pair]), where)
            raise

    async def _json(self, request: ChatRequest) -> Plan:
        if tools_of(request):
            raise Unsupported(
                "With this model 'response_format' cannot be combined with tools that it may call.",
                param="response_format",
            )
        form = request.response_format.json_schema if request.response_format else None
        schema = fixed_spacing({"type": "object"} if form is None else form.schema_)
        await self._schemas.require(schema, "response_format")
        prompt = await self.prompt(request, thinking=False)
        return Plan(COMPLETIONS, {"prompt": prompt, "json_schema": schema}, JsonReader())

    async def _hermes_tools(self, request: ChatRequest) -> Plan:
        prompt = await self.prompt(request)
        reader = FormReader(
            HERMES,
            {tool.function.name for tool in request.tools or []},
            thinking=prompt.rstrip().endswith(THINK[0]),
            parallel=request.parallel_tool_calls is not False,
        )
        return Plan(COMPLETIONS, {"prompt": prompt}, reader)


def _call_schema(chosen: list[tuple[Tool, str]]) -> dict[str, Any]:
    tools, paths = [pair[0] for pair in chosen], [pair[1] for pair in chosen]
    return fixed_spacing(call_schema(tools, paths))
