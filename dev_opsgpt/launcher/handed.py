"""What a launcher hands its children: the settings that it has accepted, and their command line.

They go through the link and not through the files, so that all processes run by the same
configuration, also one that is started again after the files were changed to something that was
refused.
"""

import pickle
import socket
from dataclasses import dataclass

from dev_opsgpt.config import ConfigError, Problem, Settings

_LENGTH = 4


@dataclass(frozen=True)
class Handed:
    """What a child runs by. ``argv`` begins with its role; ``number`` tells one from the next."""

    settings: Settings
    argv: tuple[str, ...]
    number: int = 0


def pack(handed: Handed) -> bytes:
    """The bytes that go over the link. Raises ``ConfigError`` for a configuration that is no plain
    data."""
    try:
        data = pickle.dumps(handed, pickle.HIGHEST_PROTOCOL)
    except (pickle.PickleError, AttributeError, TypeError, RecursionError) as error:
        source = str(handed.settings.origin.config_dir or "configuration")
        mend = "Write strings, numbers, lists and dictionaries only"
        problem = Problem("error", source, "a value", f"it is no plain data: {error}", mend)
        raise ConfigError([problem]) from None
    return len(data).to_bytes(_LENGTH) + data


def receive(end: socket.socket) -> Handed | None:
    """The next from the link, waited for; None when the other side is gone."""
    try:
        data = _exactly(end, int.from_bytes(_exactly(end, _LENGTH)))
    except (OSError, EOFError):
        return None
    # From the launcher that started this process, over a socket that nobody else holds.
    found = pickle.loads(data)  # noqa: S301
    assert isinstance(found, Handed)  # noqa: S101 - for the type checker
    return found


def _exactly(end: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        data = end.recv(count - len(found))
        if not data:
            raise EOFError
        found += data
    return bytes(found)
