"""The two fields of a request body that routing needs, and nothing else of it."""

import msgspec

from dev_opsgpt.protocol.errors import InvalidRequest


class Peek(msgspec.Struct):
    """What the gateway reads of a body; the worker validates the rest."""

    model: str
    stream: bool | None = None


_decoder = msgspec.json.Decoder(Peek)


def peek(body: bytes) -> Peek:
    """Reads ``model`` and ``stream``. Raises ``InvalidRequest`` that names the field."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"The request body is not valid JSON: {error}"
        raise InvalidRequest(message, code="invalid_json") from None
    except RecursionError:
        message = "The request body is nested too deeply."
        raise InvalidRequest(message, code="invalid_json") from None


def _wrong_field(reason: str) -> InvalidRequest:
    for name, wanted in (("model", "a string"), ("stream", "true or false")):
        if f"$.{name}" in reason:
            return InvalidRequest(f"'{name}' must be {wanted}.", param=name)
    if "missing required field" in reason:
        return InvalidRequest("'model' is missing.", param="model")
    return InvalidRequest("The request body must be a JSON object.", code="invalid_json")


def with_field(body: bytes, name: str, value: bytes) -> bytes:
    """The body with a top-level field set to ``value`` (JSON); the other fields stay as they came,
    to the byte."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields[name] = msgspec.Raw(value)
    return msgspec.json.encode(fields)
