"""What a whole stack tells of a request: its id, its trace, its figures, its line."""

import asyncio
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.collector import attributes, collecting
from tests.support.engines import ScriptedEngine
from tests.support.stack import Stack, running

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


async def ask(stack: Stack, *, model: str = "echo", **headers: str) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "one two three"}],
        "stream": True,
    }
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await stack.client.post("/v1/chat/completions", json=body, headers=sent)


async def figures(stack: Stack) -> dict[tuple[str, str], float]:
    """Samples by name and model, over all other labels."""
    text = (await stack.client.get("/metrics")).text
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                key = sample.name, sample.labels.get("model", "")
                found[key] = found.get(key, 0.0) + sample.value
    return found


async def test_figures() -> None:
    async with running({"echo": [ScriptedEngine(), ScriptedEngine()]}) as stack:
        for _ in range(3):
            assert (await ask(stack)).status_code == 200
        for number in range(3):
            assert (await ask(stack, model=f"no-such-{number}")).status_code == 404
        found = await figures(stack)
    assert found["opsgpt_requests_total", "echo"] == 3
    assert found["opsgpt_requests_total", "unknown"] == 3
    assert found["opsgpt_prompt_tokens_total", "echo"] == 9
    assert found["opsgpt_generation_tokens_total", "echo"] == 9
    assert found["opsgpt_cached_tokens_total", "echo"] == 3
    assert found["opsgpt_time_to_first_token_seconds_count", "echo"] == 3
    assert found["opsgpt_inter_token_latency_seconds_count", "echo"] == 3
    assert found["opsgpt_request_duration_seconds_count", "echo"] == 3
    assert found["opsgpt_worker_up", "echo"] == 2
    assert found["opsgpt_requests_in_flight", "echo"] == 0
    assert found["opsgpt_streams_open", ""] == 0
    assert not any("no-such" in model for _, model in found)


async def test_what_is_under_way_is_told() -> None:
    async with running({"echo": [ScriptedEngine(delay=1.0)]}) as stack:
        asked = [asyncio.create_task(ask(stack)) for _ in range(2)]
        async with asyncio.timeout(30):
            while (await figures(stack))["opsgpt_streams_open", ""] != 2:
                await asyncio.sleep(0.05)
        assert (await figures(stack))["opsgpt_requests_in_flight", "echo"] == 2
        await asyncio.gather(*asked)
        assert (await figures(stack))["opsgpt_streams_open", ""] == 0


async def test_one_trace_from_the_client_to_the_worker() -> None:
    with collecting() as collector:
        async with running(
            {"echo": [ScriptedEngine()]},
            worker={"otlp_endpoint": collector.url},
            otlp_endpoint=collector.url,
        ) as stack:
            answer = await ask(stack, traceparent=PARENT, x_request_id="mine-1")
            assert answer.headers["x-request-id"] == "mine-1"
        spans = await asyncio.to_thread(collector.expect, 3)
        assert collector.services == {"opsgpt-gateway", "opsgpt-worker"}
    gateway, attempt, worker = spans
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert attempt.parent_span_id == gateway.span_id
    assert worker.parent_span_id == attempt.span_id
    assert attributes(attempt)["http.response.status_code"] == 200
    assert attributes(gateway)["gen_ai.usage.output_tokens"] == 3
    ids = {attributes(span)["opsgpt.request.id"] for span in (gateway, worker)}
    assert ids == {"mine-1"}


async def test_errors_are_in_the_trace() -> None:
    with collecting() as collector:
        options = {"echo": [ScriptedEngine()]}
        async with running(options, otlp_endpoint=collector.url) as stack:
            assert (await ask(stack, model="no-such")).status_code == 404
        (span,) = await asyncio.to_thread(collector.expect, 1)
    assert attributes(span)["http.response.status_code"] == 404
    assert attributes(span)["error.type"] == "model_not_found"


async def test_a_line_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    async with running({"echo": [ScriptedEngine()]}, access_log=True) as stack:
        given = (await ask(stack, x_request_id="mine-1")).headers["x-request-id"]
        made = (await ask(stack, model="sk-1234567890abcdef")).headers["x-request-id"]
    lines = [line for line in capsys.readouterr().err.splitlines() if " INFO access: " in line]
    first, second = lines
    assert given == "mine-1"
    assert "request_id=mine-1 " in first
    assert "status=200 model=echo served=echo" in first
    assert re.search(r"prompt_tokens=3 completion_tokens=3 .*duration=0\.", first)
    assert f"request_id={made} " in second
    assert "status=404 error=model_not_found model=sk-*** " in second
