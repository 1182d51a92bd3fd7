"""What is counted of a request, and that others' inventions stay bounded."""

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dev_opsgpt.gateway import metrics as module
from dev_opsgpt.gateway.exposition import expose
from dev_opsgpt.gateway.metric_names import FAMILIES, PROCESS_FAMILIES
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.protocol.record import Record

CHAT = "/v1/chat/completions"


def record(**fields: Any) -> Record:
    found = {
        "request_id": "r",
        "at": 1.0,
        "path": CHAT,
        "model": "tiny",
        "served": "tiny",
        "status": 200,
        "attempts": 1,
        "duration": 0.3,
    }
    return Record(**(found | fields))


def values(metrics: Metrics) -> dict[str, float]:
    """The page's samples as ``name{label="value",...}``, labels in the order of the alphabet and
    empty ones left out."""
    text = expose(metrics.snapshot(1.0))[0].decode()
    found = {}
    for family in parse_text(text):
        for sample in family.samples:
            pairs = (f'{k}="{v}"' for k, v in sorted(sample.labels.items()) if v)
            labels = ",".join(pairs)
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_streamed_answer() -> None:
    metrics = Metrics()
    metrics.finished(
        record(
            stream=True,
            prompt_tokens=30,
            completion_tokens=11,
            cached_tokens=20,
            cost=0.25,
            queued=0.02,
            first_token=0.05,
            generating=0.2,
        )
    )
    found = values(metrics)
    assert found[f'opsgpt_requests_total{{model="tiny",path="{CHAT}",status="200"}}'] == 1
    assert found['opsgpt_prompt_tokens_total{model="tiny"}'] == 30
    assert found['opsgpt_generation_tokens_total{model="tiny"}'] == 11
    assert found['opsgpt_cached_tokens_total{model="tiny"}'] == 20
    assert found['opsgpt_cost_total{model="tiny"}'] == 0.25
    for name, total in (
        ("time_to_first_token", 0.05),
        ("inter_token_latency", 0.02),
        ("request_duration", 0.3),
        ("queue_time", 0.02),
    ):
        assert found[f'opsgpt_{name}_seconds_count{{model="tiny"}}'] == 1
        assert found[f'opsgpt_{name}_seconds_sum{{model="tiny"}}'] == pytest.approx(total)
    assert found['opsgpt_time_to_first_token_seconds_bucket{le="0.04",model="tiny"}'] == 0
    assert found['opsgpt_time_to_first_token_seconds_bucket{le="0.06",model="tiny"}'] == 1
    assert found['opsgpt_time_to_first_token_seconds_bucket{le="+Inf",model="tiny"}'] == 1


def test_a_plain_answer_has_no_time_to_its_first_token() -> None:
    metrics = Metrics()
    metrics.finished(record(completion_tokens=5, first_token=0.3, generating=0.0))
    found = values(metrics)
    assert found['opsgpt_time_to_first_token_seconds_count{model="tiny"}'] == 0
    assert found['opsgpt_inter_token_latency_seconds_count{model="tiny"}'] == 0
    assert found['opsgpt_request_duration_seconds_count{model="tiny"}'] == 1


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_one_token_has_nothing_between(tokens: int | None) -> None:
    metrics = Metrics()
    metrics.finished(record(stream=True, completion_tokens=tokens, first_token=0.1, generating=0.0))
    assert values(metrics)['opsgpt_inter_token_latency_seconds_count{model="tiny"}'] == 0


def test_refusals_do_not_count_as_quick_answers() -> None:
    metrics = Metrics()
    metrics.finished(record(status=401, error="invalid_api_key", served="", attempts=0))
    metrics.finished(record(status=429, error="overloaded", attempts=0, queued=2.0, stream=True))
    metrics.finished(record(status=503, error="unavailable", stream=True, first_token=0.1))
    found = values(metrics)
    refused = f'{{error="invalid_api_key",model="unknown",path="{CHAT}",status="401"}}'
    assert found[f"opsgpt_requests_total{refused}"] == 1
    assert found['opsgpt_request_duration_seconds_count{model="unknown"}'] == 0
    assert found['opsgpt_request_duration_seconds_count{model="tiny"}'] == 1
    assert found['opsgpt_queue_time_seconds_sum{model="tiny"}'] == 2.0
    assert found['opsgpt_time_to_first_token_seconds_count{model="tiny"}'] == 0


def test_a_client_that_left_had_its_first_token() -> None:
    metrics = Metrics()
    metrics.finished(record(status=499, stream=True, first_token=0.1))
    assert values(metrics)['opsgpt_time_to_first_token_seconds_count{model="tiny"}'] == 1


def test_what_happened_on_the_way() -> None:
    metrics = Metrics()
    metrics.retried("tiny")
    metrics.retried("tiny")
    metrics.fell_back("tiny", "large")
    metrics.hedged("tiny")
    metrics.shed("tiny")
    found = values(metrics)
    assert found['opsgpt_retries_total{model="tiny"}'] == 2
    assert found['opsgpt_fallbacks_total{from="tiny",to="large"}'] == 1
    assert found['opsgpt_hedges_total{model="tiny"}'] == 1
    assert found['opsgpt_shed_total{model="tiny"}'] == 1


def test_invented_models_are_one_series() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.finished(
            record(
                model=f"no-such-{number}",
                served="",
                status=404,
                error="model_not_found",
                attempts=0,
            )
        )
    series = metrics.snapshot(1.0).counters["opsgpt_requests_total"]
    assert series == {("unknown", CHAT, "404", "model_not_found"): 50}
    assert "no-such" not in str(metrics.snapshot(1.0))


def test_labels_are_bounded_whatever_others_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MODELS", 3)
    monkeypatch.setattr(module, "MOST_ERRORS", 2)
    monkeypatch.setattr(module, "MOST_SERIES", 4)
    metrics = Metrics()
    for number in range(100):
        metrics.finished(record(served=f"m{number}", status=500, error=f"e{number}"))
        metrics.shed(f"s{number}")
    series = metrics.snapshot(1.0).counters["opsgpt_requests_total"]
    assert sum(series.values()) == 100
    assert {labels[0] for labels in series} <= {"m0", "m1", "m2", "s0", "s1", "other"}
    assert {labels[3] for labels in series} == {"e0", "e1", "other"}
    assert sum(metrics.snapshot(1.0).counters["opsgpt_shed_total"].values()) == 100


def test_gauges_are_read_when_somebody_asks() -> None:
    depth = 3.0
    metrics = Metrics({"opsgpt_queue_depth": lambda: [(("tiny",), depth)]})
    assert values(metrics)['opsgpt_queue_depth{model="tiny"}'] == 3
    depth = 4.0
    assert values(metrics)['opsgpt_queue_depth{model="tiny"}'] == 4
    assert values(metrics)["opsgpt_gateway_processes"] == 1


@pytest.mark.parametrize(
    "name", ["opsgpt_no_such", "opsgpt_requests_total", "opsgpt_queue_time_seconds"]
)
def test_sources_are_for_what_is_not_counted_here(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Metrics({name: lambda: []})


def test_both_formats_name_every_family() -> None:
    metrics = Metrics()
    metrics.finished(record(stream=True, first_token=0.1, error='a "quoted"\nname'))
    for accept, parse, kind in (
        ("", parse_text, "text/plain"),
        ("application/openmetrics-text;version=1.0.0", parse_openmetrics, "openmetrics-text"),
    ):
        body, content_type = expose(metrics.snapshot(1.0), accept)
        assert kind in content_type
        named = {family.name: family.type for family in parse(body.decode())}
        for family in (FAMILIES | PROCESS_FAMILIES).values():
            name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
            assert named[name] == family.kind
    assert 'a \\"quoted\\"\\nname' in body.decode()
