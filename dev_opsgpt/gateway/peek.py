"""The few fields of a request body that routing needs, and nothing else of it."""

import msgspec

from dev_opsgpt.protocol.errors import InvalidRequest

_ABSENT = msgspec.Raw()


class Peek(msgspec.Struct):
    """What the gateway reads of a body; the worker validates the rest. What is ``Raw`` is not even
    looked at unless the model's route wants it; empty where it is not there."""

    model: str
    stream: bool | None = None
    stream_options: msgspec.Raw = _ABSENT
    service_tier: msgspec.Raw = _ABSENT
    prompt_cache_key: msgspec.Raw = _ABSENT
    user: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT


_decoder = msgspec.json.Decoder(Peek)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def peek(body: bytes) -> Peek:
    """Reads the fields. Raises ``InvalidRequest`` that names the field."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except _UNREADABLE as error:
        if not body.strip():
            raise InvalidRequest("The request body is empty.", code="invalid_json") from None
        raise _no_json(error) from None


def _no_json(error: Exception) -> InvalidRequest:
    message = f"The request body is not valid JSON: {error}"
    if isinstance(error, RecursionError):
        message = "The request body is nested too deeply."
    return InvalidRequest(message, code="invalid_json")


def _wrong_field(reason: str) -> InvalidRequest:
    for name, wanted in (("model", "a string"), ("stream", "true or false")):
        if f"$.{name}" in reason:
            return InvalidRequest(f"'{name}' must be {wanted}.", param=name)
    if "missing required field" in reason:
        return InvalidRequest("'model' is missing.", param="model")
    return InvalidRequest("The request body must be a JSON object.", code="invalid_json")


def with_field(body: bytes, name: str, value: bytes) -> bytes:
    """The body with a top-level field set to ``value`` (JSON); the other fields stay as they came,
    to the byte. Raises ``InvalidRequest``: what ``peek`` passes over may yet be no text."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _UNREADABLE as error:
        raise _no_json(error) from None
    fields[name] = msgspec.Raw(value)
    return msgspec.json.encode(fields)
