"""Our own OpenAPI document: whole, valid, and kept to by what the gateway answers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from tests.fuzz.target import Target

HERE = Path(__file__).parent
# Requests a route and kind of test, beside those that each field's limits ask for.
EXAMPLES = 8

OPERATIONS = {
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/rerank",
    "POST /v2/rerank",
    "POST /rerank",
    "POST /chat/completions",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "POST /api/v1/token_check",
    "GET /health",
    "GET /metrics",
    "GET /v1/usage",
    "GET /v1/usage/records",
    "GET /admin/models",
    "POST /admin/models/load",
    "POST /admin/models/unload",
    "POST /admin/models/scale",
    "GET /admin/keys",
    "POST /admin/keys",
    "GET /admin/keys/{id}",
    "PATCH /admin/keys/{id}",
    "DELETE /admin/keys/{id}",
    "POST /admin/keys/{id}/rotate",
}


@pytest.fixture(scope="module")
def document(keyed: Target) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{keyed.url}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_it_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()


def test_it_has_every_route(document: dict[str, Any]) -> None:
    found = operations(document)
    assert set(found) == OPERATIONS
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/chat/completions", ChatRequest),
        ("/v1/completions", CompletionRequest),
        ("/v1/embeddings", EmbeddingRequest),
        ("/v1/rerank", RerankRequest),
        ("/v2/rerank", RerankRequest),
        ("/rerank", RerankRequest),
        ("/chat/completions", ChatRequest),
    ],
)
def test_a_hot_route_takes_what_validates_it(
    document: dict[str, Any], path: str, model: Any
) -> None:
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"] == f"#/components/schemas/{model.__name__}"
    described = document["components"]["schemas"][model.__name__]["properties"]
    assert set(described) == {field.alias or name for name, field in model.model_fields.items()}


def test_errors_and_ids_are_told_of_every_route(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        responses = operation["responses"]
        assert {"200", "4XX", "5XX"} <= set(responses)
        assert "422" not in responses
        for status, response in responses.items():
            assert "x-request-id" in response["headers"]
            if status != "200":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}


def test_who_may_call_is_told(document: dict[str, Any]) -> None:
    found = operations(document)
    assert found["GET /admin/keys"]["security"] == [{"admin_key": []}]
    assert found["GET /health"]["security"] == []
    assert found["GET /metrics"]["security"] == [{"admin_key": []}, {}]
    assert document["security"] == [{"key": []}, {}]
    assert set(document["components"]["securitySchemes"]) == {"key", "admin_key"}


def test_the_gateway_keeps_to_it(keyed: Target, tmp_path: Path) -> None:
    """By schemathesis, as its command, which tells how to repeat what it found. It is asked for
    what a schema allows and for what it does not, for each limit of each field, and for chains of
    calls that make, change and end keys."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{keyed.url}/openapi.json", "--no-color"),
        *("--phases", "coverage,fuzzing,stateful", "--max-examples", str(EXAMPLES)),
    ]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(OPERATIONS)}" in done.stdout


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "TRACE", "OPTIONS", "PURGE"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/metrics"])
def test_other_methods_are_refused(keyed: Target, method: str, path: str) -> None:
    if (method, path) == ("GET", "/metrics"):
        return
    answer = httpx.request(method, keyed.url + path)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/admin/keys", 401),
        ("GET", "/admin/keys/", 404),
        ("GET", "/v1/models", 401),
        ("GET", "/v1/models/nope", 401),
        ("POST", "/v1/chat/completions", 401),
        ("PUT", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
    ],
)
def test_every_answer_has_an_id(keyed: Target, method: str, path: str, status: int) -> None:
    url = keyed.url + path
    own = httpx.request(method, url, headers={"x-request-id": "mine-1"})
    assert (own.status_code, own.headers["x-request-id"]) == (status, "mine-1")
    unsafe = httpx.request(method, url, headers={"x-request-id": "a b"})
    none = httpx.request(method, url)
    made = [unsafe.headers["x-request-id"], none.headers["x-request-id"]]
    assert len(set(made)) == 2
    assert all(one.startswith("req-") for one in made)


def test_a_405_names_the_methods(keyed: Target) -> None:
    assert httpx.put(f"{keyed.url}/admin/keys").headers["allow"] == "GET, POST"
    assert httpx.put(f"{keyed.url}/admin/keys/a").headers["allow"] == "GET, PATCH, DELETE"
    assert httpx.post(f"{keyed.url}/health").headers["allow"] == "GET"
