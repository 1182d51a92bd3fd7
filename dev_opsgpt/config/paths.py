"""Where things lie on disk, and how the parts of the service are addressed."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `configs/`, `llm_models/` and the package."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_config_dir(config_dir: Path | None, environ: Mapping[str, str]) -> Path:
    """Give the folder of the configuration files: the argument, else OPSGPT_CONFIG_DIR, else the
    project's `configs/`, else `configs/` of the working directory."""
    if config_dir is not None:
        return config_dir
    if named := environ.get("OPSGPT_CONFIG_DIR"):
        return Path(named).expanduser()
    beside_package = PROJECT_ROOT / "configs"
    return beside_package if beside_package.is_dir() else Path.cwd() / "configs"


def is_hub_name(name: str) -> bool:
    """Tell whether `name` has the form of a Hugging Face hub name, `owner/model`."""
    return _HUB_NAME.fullmatch(name) is not None and not name.endswith(".gguf")


def resolve_model_path(name_or_path: str, root: Path = PROJECT_ROOT) -> Path | str:
    """Find a model: under `root`/llm_models, then as a path, then as a hub name.

    `owner/model` is looked for as `llm_models/owner/model` and as `llm_models/model`; `~` is
    expanded. Gives the absolute path of what exists, or the name as it came when nothing does.
    """
    models = root / "llm_models"
    path = Path(name_or_path).expanduser()
    candidates = [models / path, path]
    if is_hub_name(name_or_path):
        candidates.insert(1, models / path.name)
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    return name_or_path


def is_loopback(host: str) -> bool:
    """Tell whether a server bound to `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def base_url(host: str, port: int, advertise_host: str | None = None) -> str:
    """Give the URL by which others reach a server: `http://host:port`.

    `advertise_host` goes before `host`; an address that means "every interface" becomes the
    loopback address of the same family, because nobody can connect to it as it stands.
    """
    name = (advertise_host or host).strip("[]")
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
