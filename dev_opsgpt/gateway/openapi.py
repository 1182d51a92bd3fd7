"""The OpenAPI document. FastAPI describes its own routes; what is answered before it sees a request
is put in by hand, from the same models that validate it, and so are the errors of all routes."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from dev_opsgpt.gateway.metrics_page import PATH as METRICS
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest

Json = dict[str, Any]

_SCHEMA = "#/components/schemas/{model}"
_ROUTES: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("/v1/chat/completions", ChatRequest, "Answers a conversation, plain or streamed."),
    ("/v1/completions", CompletionRequest, "Continues a prompt, plain or streamed."),
    ("/v1/embeddings", EmbeddingRequest, "Turns texts into vectors."),
    ("/v1/rerank", RerankRequest, "Sorts documents by how well they answer a query."),
    ("/v2/rerank", RerankRequest, "The same, where clients of Cohere's API v2 look for it."),
    ("/rerank", RerankRequest, "The same, where clients of Jina look for it."),
    ("/chat/completions", ChatRequest, "The same for voice platforms; streamed by default."),
)
_SECURITY_SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A client's key. Needed only where keys are configured.",
    },
    "admin_key": {"type": "http", "scheme": "bearer", "description": "An admin key."},
}
# What each tag's routes want; the others want a client's key where there are any.
_SECURITY: dict[str, list[Json]] = {
    "admin": [{"admin_key": []}],
    "usage": [{"key": []}, {"admin_key": []}, {}],
    "metrics": [{"admin_key": []}, {}],
    "health": [],
}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "description": "An error, in OpenAI's shape.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "A sentence for people."},
                "type": {"type": "string"},
                "param": {**_TEXT_OR_NULL, "description": "The path of the field that is wrong."},
                "code": {**_TEXT_OR_NULL, "description": "What went wrong, for programs."},
            },
        }
    },
}
_REQUEST_ID = {
    "description": "The request's id: the client's own where that is safe to repeat.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
}
_WRONG = "The request is wrong or not allowed; the error says why."
_FAILED = "The model or the database cannot be reached, or failed."


def describe(app: FastAPI) -> None:
    """Makes the application's OpenAPI document a whole one."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: Json) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    # FastAPI's own errors, which are never sent.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["paths"] = {**_hot(schemas), **document["paths"], METRICS: {"get": _metrics()}}
    schemas["Error"] = _ERROR
    components["headers"] = {"RequestId": _REQUEST_ID}
    components["securitySchemes"] = _SECURITY_SCHEMES
    document["security"] = [{"key": []}, {}]
    for path in document["paths"].values():
        for operation in path.values():
            _finish(operation)


def _hot(schemas: Json) -> Json:
    hot = {}
    for path, model, summary in _ROUTES:
        schema = model.model_json_schema(ref_template=_SCHEMA)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
        hot[path] = {"post": _operation(path, model.__name__, summary)}
    return hot


def _operation(path: str, model: str, summary: str) -> Json:
    content = {"application/json": {"schema": {"$ref": _SCHEMA.format(model=model)}}}
    answers: Json = {"application/json": {"schema": {"type": "object"}}}
    if model not in ("EmbeddingRequest", "RerankRequest"):
        # What an event is, this version of OpenAPI has no words for.
        answers["text/event-stream"] = {}
    return {
        "tags": ["OpenAI"],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The answer.", "content": answers}},
    }


def _metrics() -> Json:
    text = {"schema": {"type": "string"}}
    forms = {"text/plain": text, "application/openmetrics-text": text}
    return {
        "tags": ["metrics"],
        "summary": "What Prometheus reads. For callers on this machine, and admin keys.",
        "operationId": "metrics",
        "responses": {"200": {"description": "The figures.", "content": forms}},
    }


def _finish(operation: Json) -> None:
    """Adds what all operations have in common."""
    tag = operation["tags"][0]
    if tag in _SECURITY:
        operation["security"] = _SECURITY[tag]
    responses = operation["responses"]
    responses.pop("422", None)
    responses.setdefault("4XX", {"description": _WRONG})
    responses.setdefault("5XX", {"description": _FAILED})
    for status, response in responses.items():
        response["headers"] = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
        if not status.startswith("2"):
            error = {"$ref": _SCHEMA.format(model="Error")}
            response["content"] = {"application/json": {"schema": error}}
