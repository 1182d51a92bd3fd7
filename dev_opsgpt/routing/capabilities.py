"""What a request needs of a model, what a model can do, and whether the one fits the other.

Pure. Where nothing is known of a model it is taken to be able: it is passed over only for what it
is known not to do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

# English has about four bytes a token, Chinese about three; an estimate to choose by, no more.
BYTES_PER_TOKEN = 4
# A body up to this many bytes is taken to be text.
ALL_TEXT = 8192
_IMAGES = ("image_url", "input_image")
# Where text is, in a message, in a part of one and in a call of a tool. What else there is, such as
# a sound in base64, is no text.
_TEXTS = ("content", "text", "refusal", "reasoning_content", "tool_calls", "function", "arguments")
_JSON_FORMATS = ("json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks for. ``prompt_tokens`` is an estimate of its prompt, ``tokens`` of that
    and its answer together."""

    tools: bool = False
    vision: bool = False
    json_output: bool = False
    tokens: int = 0
    prompt_tokens: int = 0


class Abilities(Protocol):
    """Whatever tells what a model can do, None where it does not know: a ``Card``, a worker's row,
    the route of a model in the configuration."""

    @property
    def tools(self) -> bool | None: ...  # noqa: D102 (told below)
    @property
    def vision(self) -> bool | None: ...  # noqa: D102
    @property
    def json_output(self) -> bool | None: ...  # noqa: D102
    @property
    def context_length(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Card:
    """What a model can do, None where that is not known: call tools, see images, be held to JSON,
    and take ``context_length`` tokens."""

    tools: bool | None = None
    vision: bool | None = None
    json_output: bool | None = None
    context_length: int | None = None


def card_of(worker: Abilities, route: Abilities) -> Card:
    """What a worker says of itself, completed from what the configuration says of its model."""
    return Card(
        tools=_first(worker.tools, route.tools),
        vision=_first(worker.vision, route.vision),
        json_output=_first(worker.json_output, route.json_output),
        context_length=_first(worker.context_length, route.context_length),
    )


def fits(card: Abilities, needs: Needs) -> bool:
    """False where a model is known not to do what is needed."""
    if needs.tools and card.tools is False:
        return False
    if needs.vision and card.vision is False:
        return False
    if needs.json_output and card.json_output is False:
        return False
    return card.context_length is None or needs.tokens <= card.context_length


class _Body(msgspec.Struct):
    """The fields that tell; of any type, for nobody has validated them."""

    messages: Any = None
    prompt: Any = None
    input: Any = None
    query: Any = None
    documents: Any = None
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    response_format: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None


_decoder = msgspec.json.Decoder(_Body)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def needs_of(body: bytes) -> Needs:
    """Reads a body in OpenAI's dialect: of a chat, a completion or embeddings, or of a rerank. One
    that is none needs nothing: the worker will refuse it."""
    try:
        asked = _decoder.decode(body)
        tools = _filled(asked.tools) or _filled(asked.functions)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Needs()
    size, vision = _read(asked.messages, asked.prompt, asked.input)
    if tools:
        # Their descriptions are part of the prompt.
        size += len(bytes(asked.tools)) + len(bytes(asked.functions))
    form = asked.response_format
    prompt = size // BYTES_PER_TOKEN
    # Documents to rerank are read one at a time, and cut to what fits.
    ranked = _read(asked.query, asked.documents)[0] // BYTES_PER_TOKEN
    return Needs(
        tools=tools,
        vision=vision,
        json_output=isinstance(form, dict) and form.get("type") in _JSON_FORMATS,
        tokens=prompt + _limit(asked),
        prompt_tokens=prompt + ranked,
    )


def prompt_tokens(body: bytes) -> int:
    """An estimate of a prompt's tokens: of a short body by its length alone."""
    return len(body) // BYTES_PER_TOKEN if len(body) <= ALL_TEXT else needs_of(body).prompt_tokens


def _first(said: Any, configured: Any) -> Any:
    return configured if said is None else said


def _filled(field: msgspec.Raw) -> bool:
    """Whether a field is a list that is not empty."""
    data = bytes(field).lstrip()
    return data.startswith(b"[") and bool(_list_decoder.decode(data))


def _limit(asked: _Body) -> int:
    """The most tokens of the answer, 0 where the body does not say."""
    for limit in (asked.max_completion_tokens, asked.max_tokens):
        if isinstance(limit, int) and not isinstance(limit, bool):
            return max(limit, 0)
    return 0


def _read(*values: Any) -> tuple[int, bool]:
    """The bytes of text in messages, prompts and inputs, and whether there is an image."""
    size, vision = 0, False
    rest = list(values)
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            size += len(value) if value.isascii() else len(value.encode(errors="replace"))
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int):  # a token of a prompt that comes as numbers
            size += BYTES_PER_TOKEN
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, dict):
            if value.get("type") in _IMAGES:
                vision = True
            else:
                rest += _parts(value)
    return size, vision


def _parts(value: dict[str, Any]) -> Iterator[Any]:
    return (value[name] for name in _TEXTS if name in value)
