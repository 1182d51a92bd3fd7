"""What FastAPI finds wrong with a request's body -> one clear error that names the field."""

from fastapi.exceptions import RequestValidationError

from dev_opsgpt.protocol.errors import InvalidRequest


def no_json() -> InvalidRequest:
    """The body cannot be read."""
    return InvalidRequest("The request body is not valid JSON.", code="invalid_json")


def explain(error: RequestValidationError) -> InvalidRequest:
    """The first thing that is wrong, by the path of its field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return no_json()
    name = ".".join(str(step) for step in first["loc"][1:])
    if not name:
        # So is a body of another content type, whatever it holds: FastAPI does not read it.
        message = "The request body must be a JSON object, sent as Content-Type: application/json."
        return InvalidRequest(message, code="invalid_json")
    return InvalidRequest(f"'{name}': {first['msg']}", param=name)
