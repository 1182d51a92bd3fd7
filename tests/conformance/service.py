"""The whole service as a user runs it: ``start.py`` in its own processes, with the real model."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tiny-chat"
# The same weights, in Hugging Face format.
TRANSFORMERS = "tiny-chat-hf"
PROVIDED = "example"
MAX_BODY = 2_000_000
START_TIMEOUT = 120.0
ATTEMPTS = 3

MODEL_CONFIG = """\
LLM_MODEL = "{model}"
LLM_MODELs = ["{model}", "{transformers}", "{provided}"]
llm_model_dict = {{
    "{model}": {{"local_model_path": "tiny-chat.gguf"}},
    "{transformers}": {{"local_model_path": "tiny-chat"}},
}}
ONLINE_LLM_MODEL = {{
    "{provided}": {{
        "version": "{model}",
        "api_base_url": "http://127.0.0.1:{gateway}/v1",
        "api_key": "EMPTY",
        "provider": "ExampleWorker",
    }}
}}
"""
SERVER_CONFIG = """\
FSCHAT_CONTROLLER = {{"port": {controller}}}
FSCHAT_OPENAI_API = {{"port": {gateway}, "max_body_size": {max_body}}}
FSCHAT_MODEL_WORKERS = {{
    "{model}": {{"port": {worker}}},
    "{transformers}": {{"port": {hf}}},
    "{provided}": {{"port": {provider}}},
}}
LOG_DIR = "logs"
DRAIN_TIMEOUT = 1.0
"""


@dataclass(frozen=True)
class Service:
    """Where the parts are. ``gateway`` is without ``/v1``."""

    gateway: str
    worker: str
    transformers: str
    provider: str


class StartFailed(Exception):
    """``start.py`` ended before it served; the message is what it showed."""


_SERVICE = pytest.StashKey[Service]()


def shared_service(config: pytest.Config) -> Service:
    """The one service of a test run, started when first asked for, stopped at its end."""
    if _SERVICE not in config.stash:
        held = contextlib.ExitStack()
        config.stash[_SERVICE] = held.enter_context(running(_folder(config)))
        config.add_cleanup(held.close)
    return config.stash[_SERVICE]


def _folder(config: pytest.Config) -> Path:
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.mktemp("service")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Service]:
    """Runs the service with its configuration and its logs in ``folder``."""
    for attempt in range(ATTEMPTS):
        process, service = _start(folder, attempt)
        try:
            _wait(process, service, folder)
        except StartFailed:
            # The ports were free a moment ago; another process may have taken one since.
            _stop(process)
            if attempt == ATTEMPTS - 1:
                raise
            continue
        except BaseException:
            _stop(process)
            raise
        break
    try:
        yield service
    finally:
        _stop(process)


def _start(folder: Path, attempt: int) -> tuple[subprocess.Popen[bytes], Service]:
    configs = folder / f"configs-{attempt}"
    configs.mkdir()
    names = ("controller", "gateway", "worker", "hf", "provider")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    values = {"model": MODEL, "transformers": TRANSFORMERS, "provided": PROVIDED}
    values |= {"max_body": str(MAX_BODY)}
    (configs / "model_config.py").write_text(MODEL_CONFIG.format(**values, **ports))
    (configs / "server_config.py").write_text(SERVER_CONFIG.format(**values, **ports))
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OPSGPT", "MODEL_"))}
    environ.pop("LLM_BASE_URL", None)
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "start.py"],
            cwd=ROOT,
            env=environ | {"OPSGPT_CONFIG_DIR": str(configs)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    at = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    return process, Service(at["gateway"], at["worker"], at["hf"], at["provider"])


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Waits until something holds; what cannot be asked yet does not. Raises ``StartFailed``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        time.sleep(0.05)
    raise StartFailed(f"not so after {seconds:g} s")


def _wait(process: subprocess.Popen[bytes], service: Service, folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    wanted = {MODEL: 1, TRANSFORMERS: 1, PROVIDED: 1}
    with httpx.Client() as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{service.gateway}/health").json()["models"] == wanted:
                    return
            time.sleep(0.05)
    raise StartFailed((folder / "start.log").read_text(errors="replace"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    # Whatever is left of its session; nothing is, if it went well.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
