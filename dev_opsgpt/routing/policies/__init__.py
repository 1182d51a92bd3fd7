"""The dispatch policies by the names that the configuration uses."""

from collections.abc import Mapping
from types import MappingProxyType

from dev_opsgpt.routing.candidate import Policy
from dev_opsgpt.routing.policies.least_latency import LeastLatency
from dev_opsgpt.routing.policies.least_load import LeastLoad
from dev_opsgpt.routing.policies.lottery import Lottery
from dev_opsgpt.routing.policies.power_of_two import PowerOfTwo
from dev_opsgpt.routing.policies.prefix_cache import PrefixCache
from dev_opsgpt.routing.policies.round_robin import RoundRobin
from dev_opsgpt.routing.policies.session_affinity import SessionAffinity
from dev_opsgpt.routing.policies.shortest_queue import ShortestQueue

POLICIES: Mapping[str, type[Policy]] = MappingProxyType(
    {
        "least_load": LeastLoad,
        "round_robin": RoundRobin,
        "lottery": Lottery,
        "shortest_queue": ShortestQueue,
        "power_of_two": PowerOfTwo,
        "least_latency": LeastLatency,
        "session_affinity": SessionAffinity,
        "prefix_cache": PrefixCache,
    }
)
DEFAULT_POLICY = "prefix_cache"
