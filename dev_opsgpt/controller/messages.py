"""Bodies of the controller's routes that FastChat does not have."""

from typing import Annotated, Literal

import msgspec

from dev_opsgpt.protocol.fastchat import Address, Name
from dev_opsgpt.routing.cards import Bounds, Card, Part, Standing
from dev_opsgpt.routing.table import Worker


class Deregister(msgspec.Struct):
    """``/deregister_worker``; the answer is ``Exist``. One that ``returns`` is away for a while:
    its models are unavailable meanwhile, not unknown."""

    worker_name: Address
    returns: bool = False


class Drain(msgspec.Struct):
    """``/drain_worker``: the worker stays listed and gets no new requests, or does again."""

    worker_name: Address
    drain: bool = True


class WorkerList(msgspec.Struct):
    """The answer of ``/list_workers``."""

    workers: list[Worker]


class ReleaseRequest(msgspec.Struct):
    """``/release_worker``: stop ``model_name``; with ``new_model_name`` replace it by that one;
    with ``keep_origin`` too, only start the new one."""

    model_name: str
    new_model_name: str | None = None
    keep_origin: bool = False


class ReleaseReply(msgspec.Struct):
    """How a release went: 200, or 500 and the reason."""

    code: Literal[200, 500]
    msg: str


class LauncherReport(msgspec.Struct):
    """``/launchers/report``: the replicas that a launcher has, the models that somebody has had
    stopped there, and why others do not run that were to. The answer is ``Exist``."""

    name: Name
    parts: list[Part]
    released: list[Name] = []
    failures: dict[Name, str] = {}


class LauncherHello(msgspec.Struct):
    """``/launchers/connect`` and ``/launchers/models``: who the launcher is and which models it can
    start, with a card for each that it runs itself, how much of these may be loaded, and the rest
    as in its reports. The answer of the latter is ``Exist``."""

    name: Name
    models: list[Name]
    cards: list[Card] = []
    bounds: Bounds = Bounds()
    parts: list[Part] = []
    released: list[Name] = []
    failures: dict[Name, str] = {}


class LoadRequest(msgspec.Struct):
    """``/load_model``: have a model loaded, which is called so by clients or by the configuration.
    The answer, after ``seconds`` at most, is a ``Standing``: when the model is loaded, has failed,
    or still is not. A gateway asks for a request that is ``demanded``; without that it is somebody
    who wants it to stay."""

    model_name: Name
    demanded: bool = False
    seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class UnloadRequest(msgspec.Struct):
    """``/unload_model``: the model leaves until it is needed again; the answer is
    ``ReleaseReply``."""

    model_name: Name


class ScaleRequest(msgspec.Struct):
    """``/scale_model``: as many replicas; the answer is ``ReleaseReply``."""

    model_name: Name
    replicas: Annotated[int, msgspec.Meta(ge=1, le=1024)]


class ModelTable(msgspec.Struct):
    """The answer of ``/models``."""

    models: list[Standing]


class Command(msgspec.Struct):
    """A line of ``/launchers/connect``: start a model, stop the replica at an address, or load or
    unload a model. ``replicas`` more are started, ``demanded`` loads are for a request."""

    type: Literal["start", "stop", "load", "unload"]
    id: str
    model: str
    address: str | None = None
    replicas: int | None = None
    demanded: bool = False


class LauncherReply(msgspec.Struct):
    """``/launchers/reply``: how a command went; the answer is ``Exist``."""

    id: str
    ok: bool
    msg: str = ""


class Health(msgspec.Struct):
    """The answer of ``/health``."""

    status: Literal["ok"]
    workers: int
    models: int
