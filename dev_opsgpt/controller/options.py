"""What a controller is made with, as plain values."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AttachedServer:
    """A model of an OpenAI-compatible server that is used by its URL.

    ``url`` is the base that ``/models`` and ``/chat/completions`` are appended to, such as
    ``http://10.0.0.5:8000/v1``. Clients ask for ``model``; the server knows it as
    ``upstream_model``, by default the same name or the only one that it lists. ``limited``: no more
    than about ``limit`` requests are sent there at once, which else is a guess to weigh loads by.
    """

    model: str
    url: str
    upstream_model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    limit: int = 5
    limited: bool = False
    speed: float = 1.0
    multimodal: bool = False


@dataclass(frozen=True)
class ControllerOptions:
    """The controller's settings; times in seconds.

    Without a ``secret`` everything is open. ``fastchat_workers`` are patterns of addresses that
    may register and beat without it, ``fastchat_clients`` opens FastChat's read routes.
    ``drain_timeout`` bounds the wait for a released worker's requests in flight, ``start_timeout``
    that for a started model to register, ``stop_timeout`` that for a worker's end once it has
    drained by itself too. ``settle`` is how long after a drain requests may still come from a
    gateway that had not heard of it.
    """

    secret: str | None = field(default=None, repr=False)
    dispatch_method: str = "prefix_cache"
    fastchat_workers: tuple[str, ...] = ()
    fastchat_clients: bool = False
    attached: tuple[AttachedServer, ...] = ()
    drain_timeout: float = 30.0
    start_timeout: float = 600.0
    stop_timeout: float = 30.0
    settle: float = 0.5
    sweep_interval: float = 1.0
    probe_interval: float = 5.0
