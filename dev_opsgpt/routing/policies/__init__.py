"""The dispatch policies by the names that the configuration uses."""

from collections.abc import Mapping
from types import MappingProxyType

from dev_opsgpt.routing.candidate import Policy
from dev_opsgpt.routing.policies.least_load import least_load
from dev_opsgpt.routing.policies.lottery import lottery
from dev_opsgpt.routing.policies.round_robin import round_robin
from dev_opsgpt.routing.policies.shortest_queue import shortest_queue

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "least_load": least_load,
        "round_robin": round_robin,
        "lottery": lottery,
        "shortest_queue": shortest_queue,
    }
)
DEFAULT_POLICY = "least_load"
