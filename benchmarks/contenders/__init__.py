"""Everything that can be measured, by name, in the order of the tables."""

from types import MappingProxyType

from benchmarks.contender import Factory
from benchmarks.contenders.direct import Direct
from benchmarks.contenders.nginx import Nginx
from benchmarks.contenders.opsgpt import Attached, Keyed

CONTENDERS: MappingProxyType[str, Factory] = MappingProxyType(
    {"direct": Direct, "nginx": Nginx, "attached": Attached, "keyed": Keyed}
)
BASELINE = "nginx"
"""The one that the others are compared with."""
