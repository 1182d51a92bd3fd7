"""What is counted of one model: tokens, cost, and how long things took."""

from collections.abc import Mapping
from types import MappingProxyType

from dev_opsgpt.gateway.histogram import Histogram
from dev_opsgpt.gateway.metric_names import FAMILIES
from dev_opsgpt.gateway.snapshot import Counts, Snapshot
from dev_opsgpt.protocol.record import Record

# Statuses of a stream that began; 499 is the client's leaving.
_STREAMED = (200, 499)
# Exported name -> attribute.
TOTALS: Mapping[str, str] = MappingProxyType(
    {
        "opsgpt_prompt_tokens_total": "prompt",
        "opsgpt_generation_tokens_total": "generated",
        "opsgpt_cached_tokens_total": "cached",
        "opsgpt_cost_total": "cost",
    }
)
TIMES: Mapping[str, str] = MappingProxyType(
    {
        "opsgpt_time_to_first_token_seconds": "first_token",
        "opsgpt_inter_token_latency_seconds": "inter_token",
        "opsgpt_request_duration_seconds": "duration",
        "opsgpt_queue_time_seconds": "queued",
    }
)


class ModelFigures:
    """The figures of the model that goes by ``label``."""

    __slots__ = ("label", *TOTALS.values(), *TIMES.values())
    label: str
    prompt: float
    generated: float
    cached: float
    cost: float
    first_token: Histogram
    inter_token: Histogram
    duration: Histogram
    queued: Histogram

    def __init__(self, label: str) -> None:
        self.label = label
        for attribute in TOTALS.values():
            setattr(self, attribute, 0)
        for name, attribute in TIMES.items():
            setattr(self, attribute, Histogram(FAMILIES[name].bounds))

    def add(self, record: Record) -> None:
        """Counts a request. One that reached no worker only has waited; the time to the first
        token is that of streams, because a plain answer's first byte is its last."""
        if record.attempts or record.queued:
            self.queued.observe(record.queued)
        if not record.attempts:
            return
        self.duration.observe(record.duration)
        completion = record.completion_tokens
        if record.prompt_tokens:
            self.prompt += record.prompt_tokens
        if completion:
            self.generated += completion
        if record.cached_tokens:
            self.cached += record.cached_tokens
        if record.cost:
            self.cost += record.cost
        first = record.first_token
        if record.stream and first is not None and record.status in _STREAMED:
            self.first_token.observe(first)
            if completion is not None and completion > 1 and record.generating is not None:
                self.inter_token.observe(record.generating / (completion - 1))

    def save(self, snapshot: Snapshot) -> None:
        """Puts the figures into a snapshot."""
        key = (self.label,)
        for name, attribute in TOTALS.items():
            snapshot.counters.setdefault(name, {})[key] = getattr(self, attribute)
        for name, attribute in TIMES.items():
            mine: Histogram = getattr(self, attribute)
            counts = Counts(list(mine.counts), mine.total)
            snapshot.histograms.setdefault(name, {})[key] = counts

    def load(self, snapshot: Snapshot) -> None:
        """Takes the figures that ``save`` put there, in place of these."""
        key = (self.label,)
        for name, attribute in TOTALS.items():
            setattr(self, attribute, snapshot.counters.get(name, {}).get(key, 0))
        for name, attribute in TIMES.items():
            found = snapshot.histograms.get(name, {}).get(key)
            if found is not None:
                mine: Histogram = getattr(self, attribute)
                mine.counts, mine.total = list(found.counts), found.total
