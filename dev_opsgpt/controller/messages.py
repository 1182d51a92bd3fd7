"""Bodies of the controller's routes that FastChat does not have."""

from typing import Literal

import msgspec

from dev_opsgpt.protocol.fastchat import Address, Name
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


class LauncherHello(msgspec.Struct):
    """``/launchers/connect`` and ``/launchers/models``: who the launcher is and which models it can
    start. The answer of the latter is ``Exist``."""

    name: Name
    models: list[Name]


class Command(msgspec.Struct):
    """A line of ``/launchers/connect``: start a model, or stop the replica at an address."""

    type: Literal["start", "stop"]
    id: str
    model: str
    address: str | None = None


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
