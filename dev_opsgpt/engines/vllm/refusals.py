"""vLLM's refusals as errors of our own table. Pure.

vLLM tells the Python class of an error as its ``type``, the status as its ``code``, and the field
only sometimes.
"""

import re
from collections.abc import Mapping

import msgspec

from dev_opsgpt.protocol.errors import (
    FROM_STATUS,
    ApiError,
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    UpstreamFailed,
)

_KINDS: Mapping[int, type[ApiError]] = {
    **FROM_STATUS,
    401: UpstreamFailed,
    403: UpstreamFailed,
    405: MethodNotAllowed,
}
PROMPTS = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
}
# Validation puts the place before a field, and the class that it tried.
_PLACE = re.compile(r"^body\.?|(?<=\.)[A-Z]\w*\.")
_TOO_LONG = re.compile(
    r"(?i)maximum context length|maximum model length|exceeds model's maximum|max_model_len"
)
_OUTPUT = re.compile(r"(?i)max_(completion_)?tokens")
_NAMED = re.compile(r"\(parameter=(\w+)")
_VOCABULARY = re.compile(r"(?i)out of vocabulary")
_GRAMMAR = re.compile(r"(?i)\b(grammar|json.?schema|structured.?output|xgrammar|guidance)")
_LONGEST = 1000


class _Told(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: int | str | None = None


class _Body(msgspec.Struct):
    error: _Told | str = ""
    detail: str | list[object] = ""


def reshaped(status: int, body: bytes, path: str) -> ApiError:
    """The error that an answer of vLLM stands for; status 0 is that of an event in a stream, whose
    own code tells it."""
    told = _told(body)
    if not status:
        status = told.code if isinstance(told.code, int) else 500
    message = " ".join(told.message.split())[:_LONGEST] or "vLLM refused the request."
    if status in (400, 422):
        return _invalid(message, told.param, path)
    kind: type[ApiError] = InvalidRequest if status < 500 else InternalError
    return _KINDS.get(status, kind)(message, param=_field(told.param))


def _invalid(message: str, param: str | None, path: str) -> ApiError:
    field = _field(param)
    if field is None and (found := _NAMED.search(message)):
        field = found[1]
    if _TOO_LONG.search(message):
        of_answer = _OUTPUT.search(field or "")
        return ContextLengthExceeded(message, param=field if of_answer else PROMPTS.get(path))
    if field is None and _VOCABULARY.search(message):
        field = PROMPTS.get(path)
    if field is None and _GRAMMAR.search(message):
        field = "response_format"
    return InvalidRequest(message, param=field)


def _told(body: bytes) -> _Told:
    try:
        found = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Told()
    if isinstance(found.error, _Told):
        return found.error
    return _Told(message=found.error or str(found.detail))


def _field(param: str | None) -> str | None:
    return _PLACE.sub("", param) or None if param else None
