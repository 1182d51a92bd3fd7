"""How much each key uses, counted together by all gateway processes: in a file that they share, or
in Redis."""

from dev_opsgpt.gateway.limits.lease import UNLIMITED, Lease, Limits, Used
from dev_opsgpt.gateway.limits.shared import LocalLimits, SharedLimits

__all__ = ["UNLIMITED", "Lease", "Limits", "LocalLimits", "SharedLimits", "Used"]
