"""What can go wrong between us and a server that we call."""

from dev_opsgpt.protocol.errors import UpstreamFailed, UpstreamTimeout


class ConnectFailed(UpstreamFailed):
    """Nobody answered at the address: refused, unreachable, name unknown, or too slow to accept."""

    default_code = "upstream_unreachable"


class ConnectionBroken(UpstreamFailed):
    """The connection ended before the answer did."""

    default_code = "upstream_disconnected"


class BadResponse(UpstreamFailed):
    """What came back is not HTTP/1.1."""

    default_code = "upstream_bad_response"


class ReadTimeout(UpstreamTimeout):
    """The server fell silent in the middle of an answer, or never began one."""
