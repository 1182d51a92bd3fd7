"""The names under which ``/metrics`` exports: what each counts, its labels, how processes' values
become one. The page, the dashboard's test and the table in the documentation are held to this.

Units and words follow vLLM's and SGLang's own pages, so that a panel made for them needs a new
prefix and little else.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

PREFIX = "opsgpt_"
UNKNOWN = "unknown"
"""The ``model`` of requests for models that do not exist: a client's invention is no label."""
OTHER = "other"
"""What labels beyond the bounds of their number become."""

# Upper bounds in seconds: fine where a model answers from its cache, coarse where it queues.
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0)
_LONG = (7.5, 10.0, 20.0, 40.0, 80.0)
_INTER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_QUEUE = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)


class Family(NamedTuple):
    """One exported name. ``merge`` says what several gateway processes' values come to, ``bounds``
    are a histogram's upper bounds, in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max"] = "sum"
    bounds: tuple[float, ...] = ()


def _named(*families: Family) -> Mapping[str, Family]:
    return MappingProxyType({family.name: family for family in families})


FAMILIES = _named(
    Family(
        "opsgpt_requests_total",
        "counter",
        "Requests that are over. error is the code in the answer, empty for none.",
        ("model", "path", "status", "error"),
    ),
    Family(
        "opsgpt_prompt_tokens_total", "counter", "Prompt tokens of answered requests.", ("model",)
    ),
    Family("opsgpt_generation_tokens_total", "counter", "Tokens that were generated.", ("model",)),
    Family(
        "opsgpt_cached_tokens_total",
        "counter",
        "Prompt tokens that the model had in its cache.",
        ("model",),
    ),
    Family(
        "opsgpt_cost_total", "counter", "Cost by the price table, in the table's unit.", ("model",)
    ),
    Family(
        "opsgpt_time_to_first_token_seconds",
        "histogram",
        "Time from a streamed request's arrival to the first byte of its answer.",
        ("model",),
        bounds=_FIRST_TOKEN + _LONG,
    ),
    Family(
        "opsgpt_inter_token_latency_seconds",
        "histogram",
        "Mean time between the tokens of a streamed answer, one value an answer.",
        ("model",),
        bounds=_INTER_TOKEN,
    ),
    Family(
        "opsgpt_request_duration_seconds",
        "histogram",
        "Time from the arrival of a request that reached a worker to the end of its answer.",
        ("model",),
        bounds=_DURATION,
    ),
    Family(
        "opsgpt_queue_time_seconds",
        "histogram",
        "Time that a request waited in the gateway for a worker.",
        ("model",),
        bounds=_QUEUE,
    ),
    Family(
        "opsgpt_retries_total",
        "counter",
        "Times that a request was given to another worker.",
        ("model",),
    ),
    Family(
        "opsgpt_fallbacks_total",
        "counter",
        "Times that another model was asked instead.",
        ("from", "to"),
    ),
    Family(
        "opsgpt_hedges_total",
        "counter",
        "Times that a second worker was asked beside a slow one.",
        ("model",),
    ),
    Family(
        "opsgpt_shed_total",
        "counter",
        "Requests refused because too many were waiting, or for too long.",
        ("model",),
    ),
    Family(
        "opsgpt_requests_in_flight",
        "gauge",
        "Requests of this gateway that a worker is answering.",
        ("model", "worker"),
    ),
    Family("opsgpt_queue_depth", "gauge", "Requests waiting in the gateway.", ("model",)),
    Family("opsgpt_streams_open", "gauge", "Streamed answers that are under way."),
    Family(
        "opsgpt_worker_up",
        "gauge",
        "Whether a worker of the table answers: 1, or 0.",
        ("worker", "kind", "model"),
        merge="max",
    ),
    Family(
        "opsgpt_breaker_state",
        "gauge",
        "A worker's circuit breaker: 0 closed, 1 half-open, 2 open.",
        ("worker",),
        merge="max",
    ),
    Family("opsgpt_usage_records_written_total", "counter", "Usage records written."),
    Family("opsgpt_usage_records_dropped_total", "counter", "Usage records that could not be."),
    Family("opsgpt_usage_records_pending", "gauge", "Usage records that wait to be written."),
    Family("opsgpt_gateway_processes", "gauge", "Gateway processes on this port."),
    Family(
        "opsgpt_build_info",
        "gauge",
        "Always 1; the labels say what runs.",
        ("version", "python"),
        merge="max",
    ),
)

_PROCESS = ("process",)
# Told by prometheus_client, under its names; `process` is the gateway process's number.
PROCESS_FAMILIES = _named(
    Family("process_cpu_seconds_total", "counter", "CPU time used, in seconds.", _PROCESS),
    Family("process_resident_memory_bytes", "gauge", "Resident memory.", _PROCESS),
    Family("process_virtual_memory_bytes", "gauge", "Virtual memory.", _PROCESS),
    Family("process_start_time_seconds", "gauge", "Start, in Unix time.", _PROCESS),
    Family("process_open_fds", "gauge", "Open files and connections.", _PROCESS),
    Family("process_max_fds", "gauge", "How many may be open.", _PROCESS),
)
