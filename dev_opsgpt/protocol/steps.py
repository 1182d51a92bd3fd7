"""The steps of a generated answer: what engines yield and answers are put together from."""

import msgspec


class ToolCallDelta(msgspec.Struct):
    """A piece of a tool call. ``id`` and ``name`` come with the first piece of each call;
    ``arguments`` is a fragment of JSON text, to be joined."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class TokenLogprob(msgspec.Struct):
    """The natural logarithm of a token's probability; ``bytes`` is its exact UTF-8, which may be
    a part of a character; ``top`` the most likely tokens at this place, likeliest first."""

    token: str
    logprob: float
    bytes: list[int]
    top: list["TokenLogprob"] = []


class Usage(msgspec.Struct):
    """Token counts of one sequence."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Delta(msgspec.Struct):
    """One step of one sequence. ``content`` is whole characters only. The last step carries
    ``finish_reason`` (stop, length, tool_calls or content_filter) and ``usage``."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = []
    logprobs: list[TokenLogprob] = []
    finish_reason: str | None = None
    usage: Usage | None = None
