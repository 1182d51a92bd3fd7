"""How a chat request is put to llama.cpp: as a chat, or as a prompt with a grammar.

llama.cpp's own chat route reads reasoning and tool calls in the forms of many models. It does not
enforce ``tool_choice``, and breaks off answers that do not fit the form that it expects. So calls
that must be made, JSON answers, and Hermes-style tools go another way: the chat template is
rendered, the text is generated, and we read it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dev_opsgpt.engines.asked_schema import answer_schema
from dev_opsgpt.engines.forced_tools import CallReader, Places, call_schema, places_of
from dev_opsgpt.engines.json_or_calls import JsonOrCalls
from dev_opsgpt.engines.llama_cpp_images import ImageReader
from dev_opsgpt.engines.llama_cpp_messages import messages_of
from dev_opsgpt.engines.llama_cpp_schemas import SPACING, SchemaCheck, fixed_spacing
from dev_opsgpt.engines.llama_cpp_server import COMPLETIONS, LlamaServer
from dev_opsgpt.engines.template_messages import callable_tools, tools_of
from dev_opsgpt.engines.text_formats.choose import form_of
from dev_opsgpt.engines.text_formats.form import THINK
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.engines.text_reader import JsonReader, PlainReader, TextReader
from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest

CHAT = "/v1/chat/completions"


class Plan(msgspec.Struct):
    """One call of llama.cpp: its route and body (less the sampling), and how to read its text."""

    route: str
    body: dict[str, Any]
    reader: TextReader


class ChatPlanner:
    """Makes plans for a loaded model with this chat template.

    ``images`` reads those of a request, for a model that sees; ``marker`` is then what stands for
    one in a rendered prompt.
    """

    def __init__(
        self,
        server: LlamaServer,
        template: str,
        *,
        images: ImageReader | None = None,
        marker: str = "",
    ) -> None:
        self._server = server
        self._schemas = SchemaCheck(server)
        self._form = form_of(template)
        # Calls of the others are left to llama.cpp.
        self._hermes = self._form is HERMES
        self._special: Mapping[str, int] | None = None
        self._images = images
        self._marker = marker

    async def plan(self, request: ChatRequest) -> Plan:
        """The plan for a request. Raises ``InvalidRequest`` or ``Unsupported``."""
        images = await self.images(request)
        if request.must_call:
            return await self._forced(request, images)
        if request.response_format is not None and request.response_format.type != "text":
            return await self._json(request, images)
        tools = tools_of(request)
        if tools and self._hermes:
            return await self._hermes_tools(request, images)
        if tools and request.logprobs:
            raise Unsupported(
                "This model gives no log probabilities where it has tools.", param="logprobs"
            )
        body: dict[str, Any] = {"messages": messages_of(request, images)}
        if request.chat_template_kwargs:
            body["chat_template_kwargs"] = request.chat_template_kwargs
        if tools:
            body["tools"] = tools
            body["parallel_tool_calls"] = request.parallel_tool_calls is not False
        if images:
            self._check_end(await self.prompt(request, images))
        return Plan(CHAT, body, PlainReader())

    async def images(self, request: ChatRequest) -> list[str] | None:
        """The images of a request, None for a model that sees none. Raises ``InvalidRequest``."""
        return None if self._images is None else await self._images.read(request)

    async def prompt(
        self, request: ChatRequest, images: Sequence[str] | None = None, *, thinking: bool = True
    ) -> str:
        """The messages and tools under the chat template, a marker for each of the images.
        ``thinking`` False keeps models that reason first from doing so. Raises ``InvalidRequest``
        for what the template refuses."""
        body: dict[str, Any] = {"messages": messages_of(request, images, bare=True)}
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

    async def count(self, request: ChatRequest) -> int:
        """The tokens of the messages under the chat template, those of images included."""
        images = await self.images(request)
        if not images:
            return await self.count_text(await self.prompt(request, images))
        body = {"messages": messages_of(request, images)}
        found = await self._server.post("/chat/completions/input_tokens", body)
        return int(found["input_tokens"])

    async def count_text(self, text: str) -> int:
        """The tokens of a text, with what stands before every prompt."""
        body = {"content": text, "add_special": True, "parse_special": True}
        return len((await self._server.post("/tokenize", body))["tokens"])

    def _completion(
        self, prompt: str, images: list[str] | None, reader: TextReader, **body: Any
    ) -> Plan:
        """The plan that has a rendered prompt continued."""
        asked: Any = prompt
        if images:
            self._check_end(prompt)
            asked = {"prompt_string": prompt, "multimodal_data": images}
        return Plan(COMPLETIONS, {"prompt": asked, **body}, reader)

    def _check_end(self, prompt: str) -> None:
        """llama.cpp aborts, and the process with it, over a prompt that ends in an image."""
        if prompt.endswith(self._marker):
            raise InvalidRequest(
                "The model's chat template puts nothing after the last image: let text follow it.",
                param="messages",
            )

    async def _forced(self, request: ChatRequest, images: list[str] | None) -> Plan:
        chosen = places_of(request)
        schema = fixed_spacing(call_schema(chosen))
        try:
            await self._schemas.require(schema, "tools")
        except InvalidRequest:
            await self._blame(chosen)
            raise
        prompt = await self.prompt(request, images, thinking=False)
        if self._hermes:
            prompt += HERMES.forced
        return self._completion(prompt, images, CallReader(), json_schema=schema)

    async def _blame(self, tools: Places) -> None:
        """Raises ``InvalidRequest`` at the first tool whose parameters cannot be followed."""
        for pair in tools:
            schema = fixed_spacing(call_schema([pair]))
            await self._schemas.require(schema, f"{pair[1]}.function.parameters")

    async def _json(self, request: ChatRequest, images: list[str] | None) -> Plan:
        schema = answer_schema(request)
        tools = places_of(request)
        if tools:
            return await self._json_or_calls(request, images, schema, tools)
        schema = fixed_spacing(schema)
        await self._schemas.require(schema, "response_format")
        prompt = await self.prompt(request, images, thinking=False)
        return self._completion(prompt, images, JsonReader(), json_schema=schema)

    async def _json_or_calls(
        self,
        request: ChatRequest,
        images: list[str] | None,
        schema: dict[str, Any],
        tools: Places,
    ) -> Plan:
        parallel = request.parallel_tool_calls is not False
        choice = JsonOrCalls(schema, tools, self._form, parallel)
        if not choice.possible:
            raise Unsupported(
                "With this model 'response_format' cannot be combined with these tools: an answer "
                "cannot be held to its form of their calls.",
                param="response_format",
            )
        special = await self._special_marks()
        grammar = f"%llguidance {{}}\n{choice.lark(special, SPACING)}"
        try:
            await self._schemas.require_grammar(grammar, "response_format")
        except InvalidRequest:
            await self._schemas.require(fixed_spacing(schema), "response_format")
            await self._blame(tools)
            raise
        prompt = await self.prompt(request, images, thinking=False)
        return self._completion(
            prompt, images, choice.reader(), grammar=grammar, preserved_tokens=sorted(special)
        )

    async def _special_marks(self) -> Mapping[str, int]:
        """The marks of the form that are special tokens of this model: those that are one token
        only where special tokens are looked for."""
        if self._special is None:
            found: dict[str, int] = {}
            for mark in sorted(self._form.marks):
                read = [await self._tokens(mark, special=special) for special in (True, False)]
                if len(read[0]) == 1 and read[0] != read[1]:
                    found[mark] = read[0][0]
            self._special = found
        return self._special

    async def _tokens(self, text: str, *, special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": special}
        tokens: list[int] = (await self._server.post("/tokenize", body))["tokens"]
        return tokens

    async def _hermes_tools(self, request: ChatRequest, images: list[str] | None) -> Plan:
        prompt = await self.prompt(request, images)
        reader = FormReader(
            HERMES,
            callable_tools(request),
            thinking=prompt.rstrip().endswith(THINK[0]),
            parallel=request.parallel_tool_calls is not False,
        )
        # A model may have the marks as special tokens, of which llama.cpp shows these only.
        return self._completion(prompt, images, reader, preserved_tokens=sorted(HERMES.marks))
