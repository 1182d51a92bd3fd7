"""The hot routes in the OpenAPI document: they are answered before FastAPI sees them, so their
description is put in by hand, from the same models that validate them."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest

_REF = "#/components/schemas/{model}"
_ROUTES: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("/v1/chat/completions", ChatRequest, "Answers a conversation, plain or streamed."),
    ("/v1/completions", CompletionRequest, "Continues a prompt, plain or streamed."),
    ("/v1/embeddings", EmbeddingRequest, "Turns texts into vectors."),
    ("/chat/completions", ChatRequest, "The same for voice platforms; streamed by default."),
)


def describe(app: FastAPI) -> None:
    """Adds the hot routes to the application's OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def _add(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    # A key is needed only where some are configured.
    document["security"] = [{"key": []}, {}]
    schemas = components.setdefault("schemas", {})
    hot = {}
    for path, model, summary in _ROUTES:
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
        hot[path] = {"post": _operation(model.__name__, summary)}
    document["paths"] = hot | document["paths"]


def _operation(model: str, summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
    answers = {"application/json": {"schema": {"type": "object"}}}
    if model != "EmbeddingRequest":
        answers["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "tags": ["OpenAI"],
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The answer.", "content": answers},
            "4XX": {"description": "The request is wrong; the error names the field."},
            "5XX": {"description": "The model cannot be reached or failed."},
        },
    }
