"""What a vLLM engine is made with, as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Requests that vLLM runs at once where nobody says how many: it batches them, so that a limit as
# for other engines would only waste it. Its own default differs from device to device.
DEFAULT_LIMIT = 256


@dataclass(frozen=True)
class VllmOptions:
    """How vLLM is run for one model, and by whom it is reached.

    ``path`` is a folder or a hub name, ``names`` what clients call the model. ``python`` is the
    interpreter that has vLLM, None for this one. ``host`` is what the server binds to, under which
    others reach it as ``advertise_host``; ``controller`` is the URL of the controller. Of
    ``secret`` the server's key is made. ``device`` is where it is to run. ``num_gpus`` is None
    where nobody said a number, ``gpus`` are those that the process sees. ``engine_args`` and
    ``environ`` are the user's. ``cache`` is a folder for what is learned of vLLM. ``pause`` gives
    the seconds before the next start, after a life of so many seconds.
    """

    path: Path | str
    names: tuple[str, ...]
    pause: Callable[[float], float]
    python: str | None = None
    host: str = "127.0.0.1"
    advertise_host: str | None = None
    controller: str = ""
    secret: str | None = field(default=None, repr=False)
    device: str = "auto"
    context: int | None = None
    limit: int = DEFAULT_LIMIT
    threads: int | None = None
    num_gpus: int | None = None
    gpus: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    default_params: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    cache: Path | None = None
    read_timeout: float = 600.0
