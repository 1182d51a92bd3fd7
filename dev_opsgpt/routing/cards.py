"""What launchers tell of their models, and what gateways are told of them: plain values.

A *card* is a model that a launcher can load, a *part* one replica of it as the launcher sees its
process, a *standing* what a client may know of the model. Memory is in bytes, times in seconds.
"""

from typing import Literal

import msgspec

Phase = Literal["unloaded", "waiting", "loading", "restarting", "loaded", "unloading", "failed"]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a launcher can load.

    ``names`` are those that clients use. With ``on_demand`` a request loads it. ``keep_alive`` is
    how long it may be idle before it is unloaded, None for ever; that and eviction concern a
    model that ``stays`` only where a request has loaded it, not where somebody or the
    configuration has. ``size`` is what one of its ``replicas`` takes of the machine's memory, as
    far as its files tell, ``gpu`` what it takes of the GPUs' together, as far as anybody has said.
    """

    name: str
    names: tuple[str, ...]
    on_demand: bool = False
    keep_alive: float | None = None
    stays: bool = True
    replicas: int = 1
    size: int = 0
    gpu: int = 0


class Bounds(msgspec.Struct, frozen=True):
    """The most that one launcher may have loaded: replicas, bytes of the machine's memory, and
    bytes of all its GPUs together; None for no bound."""

    replicas: int | None = None
    memory: int | None = None
    gpu: int | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A replica on a launcher. ``doing`` is what it is at while it loads, ``fraction`` how much of
    that is done, ``seconds`` since its process was started. ``demanded``: a request had it
    loaded. While it is ``restarting``, ``died`` is how its process ended, and ``deaths`` how often
    since it served last."""

    model: str
    address: str
    state: Literal["starting", "ready", "restarting", "leaving"]
    doing: str = ""
    fraction: float | None = None
    seconds: float = 0.0
    demanded: bool = False
    died: str = ""
    deaths: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model stands. ``loadable`` tells whether a request may wait for it; ``memory`` is
    what its processes take, None until they have told; ``message`` says why it waits or has failed,
    ``retry_after`` when to come again, ``deaths`` how often a process that is started again
    has died since it served last."""

    name: str
    names: tuple[str, ...]
    phase: Phase
    loadable: bool = False
    doing: str = ""
    fraction: float | None = None
    seconds: float | None = None
    replicas: int = 0
    memory: int | None = None
    launchers: tuple[str, ...] = ()
    message: str = ""
    retry_after: float | None = None
    deaths: int = 0
