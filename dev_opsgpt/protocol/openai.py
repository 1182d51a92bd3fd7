"""OpenAI's requests, validated: chat completions, completions, embeddings.

Source: OpenAI's API reference and OpenAPI document. Beyond it the sampling fields that vLLM,
llama.cpp and FastChat share are read too (``top_k``, ``min_p``, ``repetition_penalty``), and of
vLLM's and llama.cpp's ``stop_token_ids`` and ``chat_template_kwargs``, the variables of a model's
chat template. Values are checked strictly: a number in quotes is an error, as it is at OpenAI.
Fields that nobody here knows are ignored, so that a client newer than this server still works. An
unset field is ``None``: the engine's default applies.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_TOKENS = 64
# Prompts times answers of one request: each is a sequence of its own.
MAX_SEQUENCES = 1024
# Of one request for embeddings, as at OpenAI.
MAX_INPUTS = 2048

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Wire(BaseModel):
    """Base of everything read off the wire: strict types, unknown fields ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, protected_namespaces=())


def conflict(field: str, problem: str) -> PydanticCustomError:
    """A fault between fields, reported at ``field``."""
    return PydanticCustomError("conflict", problem, {"field": field})


class TextPart(Wire):
    """A text among the parts of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Wire):
    """Where an image is: a ``data:`` URL, or an address where the server allows those."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Wire):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class AudioPart(Wire):
    """A sound among the parts of a message: base64 and its format."""

    type: Literal["input_audio"]
    input_audio: dict[str, Any]


class FilePart(Wire):
    """A file among the parts of a message."""

    type: Literal["file"]
    file: dict[str, Any]


class RefusalPart(Wire):
    """What an assistant said when it refused."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | RefusalPart, Field(discriminator="type")
]


class FunctionCall(Wire):
    """A function an assistant called; ``arguments`` is JSON text."""

    name: str
    arguments: str


class ToolCall(Wire):
    """A tool call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Wire):
    """One message of a conversation, as the client sent it."""

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Message":
        if self.role == "tool" and self.tool_call_id is None:
            raise conflict("tool_call_id", "is missing in a message of role 'tool'")
        spoken = self.content is not None or self.tool_calls or self.refusal is not None
        if not spoken:
            raise conflict("content", f"is missing in a message of role '{self.role}'")
        return self

    def text(self) -> str:
        """The text of the message: its content, or its text parts joined by line ends."""
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class Function(Wire):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class NamedFunction(Wire):
    """The name in a tool choice."""

    name: str


class NamedToolChoice(Wire):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Wire):
    """Of the tools, those that may be called; ``mode`` is "required" where one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedToolChoice], Field(min_length=1)]


class AllowedToolsChoice(Wire):
    """A choice of several tools by name."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Annotated[NamedToolChoice | AllowedToolsChoice, Field(discriminator="type")]


class JsonSchema(Wire):
    """The schema an answer must follow."""

    name: str = "schema"
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool | None = None


class ResponseFormat(Wire):
    """The form of the answer: text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise conflict("json_schema", "is missing in a format of type 'json_schema'")
        return self


class StreamOptions(Wire):
    """What a stream carries besides the answer."""

    include_usage: bool = False


TokenId = Annotated[int, Field(ge=0)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Stop = Annotated[str, Field(min_length=1)]


class Generation(Wire):
    """What chat completions and completions have in common."""

    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Bias] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def choices(self) -> int:
        """How many answers to one prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that carries the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Generation):
    """The body of ``POST /v1/chat/completions``. A ``tool_choice`` of allowed tools is one among
    these tools only, the others left out, once it is read."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _tools_fit(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise conflict("top_logprobs", "needs 'logprobs' to be true")
        if self.tool_choice in (None, "none", "auto"):
            return self
        names = [tool.function.name for tool in self.tools or []]
        if not names:
            raise conflict("tool_choice", "needs 'tools'")
        choice = self.tool_choice
        allowed = choice.allowed_tools.tools if isinstance(choice, AllowedToolsChoice) else []
        for named in (choice,) if isinstance(choice, NamedToolChoice) else allowed:
            if named.function.name not in names:
                message = f"names '{named.function.name}', which is not in 'tools'"
                raise conflict("tool_choice", message)
        if not isinstance(choice, AllowedToolsChoice):
            return self
        kept = {named.function.name for named in allowed}
        tools = [tool for tool in self.tools or [] if tool.function.name in kept]
        return self.model_copy(update={"tools": tools, "tool_choice": choice.allowed_tools.mode})

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer, by either of the two names."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens

    @property
    def forced_tool(self) -> str | None:
        """The name of the one tool that must be called, if one was named."""
        choice = self.tool_choice
        return choice.function.name if isinstance(choice, NamedToolChoice) else None

    @property
    def must_call(self) -> bool:
        """Whether the answer must be a tool call."""
        return self.tool_choice == "required" or self.forced_tool is not None


TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(Generation):
    """The body of ``POST /v1/completions``."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    ) = ""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "CompletionRequest":
        if len(self.prompts) * self.choices > MAX_SEQUENCES:
            raise conflict("prompt", f"times 'n' makes more than {MAX_SEQUENCES} answers")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, one an entry."""
        prompt: Any = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        return [prompt] if isinstance(prompt[0], int) else list(prompt)


class EmbeddingRequest(Wire):
    """The body of ``POST /v1/embeddings``. ``prompt_name`` is beyond OpenAI's: one of the prompts
    that the model's configuration has, to be put before each text."""

    model: Annotated[str, Field(min_length=1)]
    input: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    prompt_name: Annotated[str, Field(min_length=1)] | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "EmbeddingRequest":
        if len(self.inputs) > MAX_INPUTS:
            raise conflict("input", f"holds more than {MAX_INPUTS} inputs")
        return self

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """The inputs, one an entry."""
        value: Any = self.input
        if isinstance(value, str):
            return [value]
        return [value] if isinstance(value[0], int) else list(value)
