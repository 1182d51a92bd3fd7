"""Bad requests get the right error, and the next request works."""

from typing import Any

import httpx
import pytest

from .conftest import AUTH

GOOD = b'{"worker_name":"http://10.9.9.1:1","check_heart_beat":true,"worker_status":'
CASES = {
    "no json": (b"{", 400, None),
    "empty": (b"", 400, None),
    "bad utf-8": (b'{"worker_name":"\xff\xfe"}', 400, None),
    "deep": (b"[" * 100_000, 400, None),
    "deep in an unknown field": (b'{"x":' + b"[" * 100_000, 400, None),
    "an array": (b"[]", 400, None),
    "missing": (b"{}", 400, "worker_name"),
    "missing within": (
        b'{"worker_name":"http://a:1","check_heart_beat":true,"opsgpt":{"limit":0}}',
        400,
        "opsgpt.limit",
    ),
    "wrong type": (b'{"worker_name":1,"check_heart_beat":true}', 400, "worker_name"),
    "in a list": (GOOD + b'{"model_names":["m",3]}}', 400, "worker_status.model_names.1"),
    "empty name": (GOOD + b'{"model_names":[""]}}', 400, "worker_status.model_names.0"),
    "out of range": (
        GOOD + b'{"model_names":["m"],"queue_length":-1}}',
        400,
        "worker_status.queue_length",
    ),
    "a huge number": (
        GOOD + b'{"model_names":["m"],"speed":1e400}}',
        400,
        "worker_status.speed",
    ),
    "bad address": (b'{"worker_name":"nonsense","check_heart_beat":true}', 400, "worker_name"),
}


async def test_bad_bodies(controller: Any) -> None:
    api = await controller()
    for name, (body, status, param) in CASES.items():
        answer = await api.client.post(api.url + "/register_worker", content=body, headers=AUTH)
        assert answer.status_code == status, (name, answer.text)
        error = answer.json()["error"]
        assert error["param"] == param, (name, error)
        assert error["type"] == "invalid_request_error"
        await api.register("http://10.9.9.2:1", "m")
    assert list(await api.workers()) == ["http://10.9.9.2:1"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_bounded(controller: Any, chunked: bool) -> None:
    api = await controller()
    size = 20 * 1024 * 1024

    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * (size // 20)

    body = pieces() if chunked else b" " * size
    try:
        answer = await api.client.post(api.url + "/register_worker", content=body, headers=AUTH)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
    except httpx.TransportError:
        pass  # the server closed the connection on the rest of the body, which can hide the answer
    await api.register("http://10.9.9.2:1", "m")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/register_worker", 405, "method_not_allowed"),
        ("POST", "/watch", 405, "method_not_allowed"),
        ("POST", "/list_models/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
    ],
)
async def test_unknown_routes(
    controller: Any, method: str, path: str, status: int, code: str
) -> None:
    api = await controller()
    answer = await api.client.request(method, api.url + path, headers=AUTH)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("allow" in answer.headers) == (status == 405)


async def test_options_that_cannot_be(controller: Any) -> None:
    with pytest.raises(ValueError, match="least_load"):
        await controller(dispatch_method="best")
