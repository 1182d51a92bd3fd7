"""The lines of a controller's ``/watch``: the table, and how it changes."""

from typing import Literal

import msgspec

from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.table import Worker

Reason = Literal["expired", "left", "unhealthy"]


class Snapshot(msgspec.Struct, tag="snapshot"):
    """A line of ``/watch``: the whole table."""

    workers: list[Worker]


class Removed(msgspec.Struct):
    """A worker that is in the table no more, and why."""

    address: str
    reason: Reason


class Change(msgspec.Struct, tag="change"):
    """A line of ``/watch``: what changed since the line before. No address is in both lists."""

    upsert: list[Worker]
    remove: list[Removed]


class Models(msgspec.Struct, tag="models"):
    """A line of ``/watch?models=1``: where each model of the launchers stands."""

    models: list[Standing]


class Ping(msgspec.Struct, tag="ping"):
    """A line of a quiet stream, so that both ends know that the other is there."""
