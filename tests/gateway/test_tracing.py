"""Traces: what came goes on, and spans reach a real collector."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev_opsgpt.gateway.tracing import PassOn, Trace, create_tracing
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.transport.telemetry import TelemetryMissing
from tests.support.collector import attributes, collecting

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01".encode()
ADDRESS = "http://127.0.0.1:20002"


def record(**fields: object) -> Record:
    found = {
        "request_id": "req-1",
        "at": time.time(),
        "path": "/v1/chat/completions",
        "client": "127.0.0.1",
    }
    return Record(**(found | fields))  # type: ignore[arg-type]


def answered(found: Record) -> Record:
    found.model = found.served = "tiny"
    found.status, found.attempts, found.stream = 200, 1, True
    found.prompt_tokens, found.completion_tokens, found.cached_tokens = 12, 34, 5
    found.first_token, found.key, found.replica = 0.25, "api-1", ADDRESS
    return found


def begun(tracing: object, headers: dict[bytes, bytes], found: Record) -> Trace:
    trace = tracing.begin(headers, found)  # type: ignore[attr-defined]
    assert trace is not None
    return trace


def test_without_a_collector_the_context_goes_on_as_it_came() -> None:
    tracing = create_tracing(None)
    assert isinstance(tracing, PassOn)
    assert tracing.begin({b"host": b"x", b"accept": b"*/*"}, record()) is None
    headers = {b"traceparent": PARENT, b"tracestate": b"a=1,b=2"}
    trace = begun(tracing, headers, record())
    lines = trace.attempt(ADDRESS)
    assert lines == b"traceparent: %b\r\ntracestate: a=1,b=2\r\n" % PARENT
    trace.attempted(ADDRESS, 200)
    trace.end(record())
    tracing.close()


@pytest.mark.parametrize("parent", [b"", b"00-zz-1-01", PARENT + b"\r\nx: y", PARENT[:-3]])
def test_a_malformed_context_stays_here(parent: bytes) -> None:
    assert PassOn().begin({b"traceparent": parent}, record()) is None


def test_spans_of_an_answered_request() -> None:
    with collecting() as collector:
        tracing = create_tracing(collector.url)
        found = record()
        trace = begun(tracing, {b"traceparent": PARENT, b"tracestate": b"a=1"}, found)
        found.model = "tiny"
        first = trace.attempt("http://127.0.0.1:20001")
        trace.attempted("http://127.0.0.1:20001", 503)
        second = trace.attempt(ADDRESS)
        trace.attempted(ADDRESS, 200)
        trace.end(answered(found))
        tracing.close()
        server, one, two = collector.expect(3)
        assert collector.paths == {"/v1/traces"}
        assert collector.services == {"opsgpt-gateway"}

    assert server.name == "POST /v1/chat/completions"
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert server.kind == server.SPAN_KIND_SERVER
    told = attributes(server)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "tiny"
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.usage.input_tokens"] == 12
    assert told["gen_ai.usage.output_tokens"] == 34
    assert told["gen_ai.usage.cache_read.input_tokens"] == 5
    assert told["gen_ai.response.time_to_first_chunk"] == 0.25
    assert told["http.response.status_code"] == 200
    assert told["opsgpt.request.id"] == "req-1"
    assert "error.type" not in told
    for span, lines in ((one, first), (two, second)):
        assert span.name == "chat tiny"
        assert span.kind == span.SPAN_KIND_CLIENT
        assert span.parent_span_id == server.span_id
        assert lines == (
            f"traceparent: 00-{TRACE_ID}-{span.span_id.hex()}-01\r\ntracestate: a=1\r\n".encode()
        )
    assert attributes(one)["error.type"] == "503"
    assert one.status.code == one.status.STATUS_CODE_ERROR
    assert attributes(two)["server.port"] == 20002
    assert two.status.code == server.status.code == two.status.STATUS_CODE_UNSET


def test_errors_are_told_and_what_is_open_ends_with_the_request() -> None:
    with collecting() as collector:
        tracing = create_tracing(collector.url + "/v1/traces")
        found = record(model="tiny")
        trace = begun(tracing, {}, found)
        for address in (ADDRESS, "http://127.0.0.1:20003", ADDRESS):
            trace.attempt(address)
        trace.attempted("http://127.0.0.1:9", 200)
        found.status, found.error = 502, "upstream_failed"
        trace.end(found)
        refused = record(status=401, error="invalid_api_key")
        begun(tracing, {}, refused).end(refused)
        broken = record(status=200, error="upstream_failed")
        begun(tracing, {}, broken).end(broken)
        tracing.close()
        spans = collector.expect(6)
    failed, *attempts, refusal, cut = spans
    assert len({span.trace_id for span in spans}) == 3
    assert not failed.parent_span_id
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "upstream_failed"
    assert {span.parent_span_id for span in attempts} == {failed.span_id}
    assert all(span.end_time_unix_nano for span in spans)
    # A client's own mistake is no error of this server; a stream that broke is.
    assert refusal.status.code == refusal.status.STATUS_CODE_UNSET
    assert attributes(refusal)["error.type"] == "invalid_api_key"
    assert cut.status.code == cut.status.STATUS_CODE_ERROR


def test_the_clients_sampled_flag_holds() -> None:
    with collecting() as collector:
        tracing = create_tracing(collector.url)
        found = record()
        trace = begun(tracing, {b"traceparent": PARENT[:-1] + b"0"}, found)
        line = trace.attempt(ADDRESS).decode()
        trace.end(answered(found))
        kept = record()
        begun(tracing, {b"traceparent": PARENT}, kept).end(answered(kept))
        tracing.close()
        assert len(collector.expect(1)) == 1
    assert re.fullmatch(rf"traceparent: 00-{TRACE_ID}-[0-9a-f]{{16}}-00\r\n", line)
    assert SPAN_ID not in line


def test_a_key_in_the_models_place_is_masked() -> None:
    with collecting() as collector:
        tracing = create_tracing(collector.url)
        found = record(model="sk-abcdefghijklmnop", status=404, error="model_not_found")
        trace = begun(tracing, {}, found)
        trace.attempt(ADDRESS)
        trace.end(found)
        tracing.close()
        assert "abcdefghijklmnop" not in str(collector.expect(2))


@pytest.mark.parametrize("trouble", ["refuses", "away"])
def test_a_collector_in_trouble_costs_no_request(trouble: str) -> None:
    with collecting() as collector:
        collector.status = 400
        url = collector.url if trouble == "refuses" else "http://127.0.0.1:9"
        tracing = create_tracing(url)
        for _ in range(20):
            found = record()
            trace = begun(tracing, {}, found)
            assert trace.attempt(ADDRESS).startswith(b"traceparent: 00-")
            trace.end(answered(found))
        began = time.monotonic()
        tracing.close()
        assert time.monotonic() - began < 10


def test_opentelemetry_is_loaded_only_where_it_is_wanted() -> None:
    script = (
        "import sys\n"
        "from dev_opsgpt.gateway.tracing import create_tracing\n"
        "import dev_opsgpt.worker.app\n"
        "create_tracing(None).begin({}, None)\n"
        "assert not any(name.startswith('opentelemetry.sdk') for name in sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dev_opsgpt.transport.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TelemetryMissing, match=r"dev-opsgpt\[telemetry\]"):
        create_tracing("http://127.0.0.1:4318")
