"""FastChat's own programs as real processes, in an environment of their own.

    environment = ensure_environment(cache, Tier.WORKER)
    with (
        start_controller(environment, logs) as controller,
        start_model_worker(environment, logs, controller.url, model, ["tiny-chat"]) as worker,
        start_gateway(environment, logs, controller.url) as gateway,
    ):
        ...  # gateway.url + "/v1/chat/completions"

Two tiers: `Tier.LIGHT` runs fschat's controller, its gateway and subclasses of its
`BaseModelWorker` that bring their own conversation template; `Tier.WORKER` adds torch and
transformers, for `model_worker` and `test_message`, and does all the light one does. A third,
`Tier.OPENAI_0_28`, holds the old client library and nothing of fschat's.
"""

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import free_ports

HERE = Path(__file__).resolve().parent
# Alone on the command line of pip: its CPU build comes from where pip is configured to look.
TORCH = "torch==2.13.0"
PORT_ATTEMPTS = 3
# What uvicorn logs. Only these tell our process from another one that holds the port.
LISTENING = "Uvicorn running on"
PORT_TAKEN = "address already in use"
# fschat's template that is plain ChatML, with a one-line system message where there is none.
CHATML_TEMPLATE = "qwen-7b-chat"


class FschatError(RuntimeError):
    """An environment could not be made, or a process of fschat did not come up."""


class Tier(Enum):
    """What an environment can run; the value is its requirements files."""

    LIGHT = ("requirements-fschat.txt",)
    WORKER = ("requirements-fschat.txt", "requirements-fschat-worker.txt")
    OPENAI_0_28 = ("requirements-openai-0.28.txt",)

    @property
    def requirements(self) -> tuple[Path, ...]:
        """The requirements files of this tier."""
        return tuple(HERE / name for name in self.value)


@dataclass(frozen=True)
class Environment:
    """A finished virtual environment. Use `python -m`: its console scripts are not moved along."""

    root: Path
    tier: Tier

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"


# --- the environment ---------------------------------------------------------------------------


def environment_key(tier: Tier, torch_options: Sequence[str] = ()) -> str:
    """Names what is installed: the requirements, torch, this interpreter."""
    digest = hashlib.sha256()
    parts = [sys.version, TORCH if tier is Tier.WORKER else "", *torch_options]
    for part in [*parts, *(path.read_text("utf-8") for path in tier.requirements)]:
        digest.update(part.encode() + b"\0")
    return f"fschat-{tier.name.lower()}-{digest.hexdigest()[:16]}"


def ensure_environment(
    cache: Path, tier: Tier = Tier.LIGHT, torch_options: Sequence[str] = ()
) -> Environment:
    """The environment of `tier` below `cache`, made on first use (about 10 and 20 seconds).

    Safe to call from several processes at once: one builds, the others wait. It is built under
    another name and renamed when whole, so an interrupted build is never taken for a finished
    one. `torch_options` are more options for the installation of torch, such as an index.
    """
    cache.mkdir(parents=True, exist_ok=True)
    key = environment_key(tier, torch_options)
    environment = Environment(cache.resolve() / key, tier)
    if _usable(environment):
        return environment
    with _locked(cache / f"{key}.lock"):
        if _usable(environment):
            return environment
        # We hold the lock, so whatever is left of other builds of this key is dead.
        for stale in [environment.root, *cache.glob(f"{key}.building-*")]:
            shutil.rmtree(stale, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f"{key}.building-", dir=cache.resolve()))
        try:
            _build(Environment(building, tier), torch_options, cache / f"{key}.log")
            building.rename(environment.root)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return environment


def _usable(environment: Environment) -> bool:
    # exists() follows the link: it is false too where the base interpreter has gone.
    return environment.python.exists()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`; the system releases it if this process dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(environment: Environment, torch_options: Sequence[str], log: Path) -> None:
    files = [str(path) for path in environment.tier.requirements]
    # --no-compile: unpacking takes half the time, and the modules in use are compiled on import.
    pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--no-compile", "--no-input"]
    commands = [[sys.executable, "-m", "venv", str(environment.root)]]
    if environment.tier is Tier.WORKER:
        constraints = [part for path in files for part in ("-c", path)]
        commands.append([*pip, *torch_options, *constraints, TORCH])
    commands.append([*pip, "--no-deps", *(part for path in files for part in ("-r", path))])
    with log.open("wb") as output:
        for command in commands:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": ""},
                check=False,
            )
            if done.returncode:
                raise FschatError(f"exit {done.returncode} of {' '.join(command)}\n{_tail(log)}")


# --- processes ---------------------------------------------------------------------------------


@dataclass
class Service:
    """A running process of fschat; a context manager that stops it."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self, patience: float = 10.0) -> None:
        """Ask it to end, and end it after `patience` seconds."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> "Service":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def start_controller(
    environment: Environment,
    logs: Path,
    *,
    dispatch: str = "shortest_queue",
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Service:
    """fschat's controller. `environ` may hold FASTCHAT_CONTROLLER_HEART_BEAT_EXPIRATION (s)."""

    def command(url: str, port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return ["-m", "fastchat.serve.controller", *where, "--dispatch-method", dispatch]

    return start_service(
        environment, logs, "controller", command, "/test_connection", port=port, environ=environ
    )


def start_gateway(
    environment: Environment,
    logs: Path,
    controller_url: str,
    *,
    api_keys: Sequence[str] = (),
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Service:
    """fschat's OpenAI-compatible gateway; `controller_url` may hold a user, password and path."""

    def command(url: str, port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        keys = ["--api-keys", ",".join(api_keys)] if api_keys else []
        module = ["-m", "fastchat.serve.openai_api_server"]
        return [*module, *where, "--controller-address", controller_url, *keys]

    # Not /v1/models: asking for it makes the controller ask every worker again.
    return start_service(
        environment, logs, "gateway", command, "/openapi.json", port=port, environ=environ
    )


def start_model_worker(
    environment: Environment,
    logs: Path,
    controller_url: str,
    model: Path,
    model_names: Sequence[str],
    *,
    conv_template: str = CHATML_TEMPLATE,
    register: bool = True,
    options: Sequence[str] = (),
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Service:
    """fschat's model_worker on the CPU; needs `Tier.WORKER`.

    `options` go on its command line, such as `--limit-worker-concurrency 2` or `--seed 0`;
    `environ` may hold FASTCHAT_WORKER_HEART_BEAT_INTERVAL (s).
    """
    if environment.tier is not Tier.WORKER:
        raise FschatError("model_worker needs an environment of Tier.WORKER")

    def command(url: str, port: int) -> list[str]:
        return [
            *("-m", "fastchat.serve.model_worker"),
            *("--host", "127.0.0.1", "--port", str(port), "--worker-address", url),
            *("--controller-address", controller_url),
            *("--model-path", str(model.resolve()), "--model-names", ",".join(model_names)),
            *("--device", "cpu", "--conv-template", conv_template),
            *(() if register else ("--no-register",)),
            *options,
        ]

    return start_service(
        environment,
        logs,
        "model-worker",
        command,
        "/worker_get_status",
        method="POST",
        port=port,
        environ=environ,
        patience=120.0,
    )


def run_test_message(
    environment: Environment, controller_url: str, model: str, message: str, max_new_tokens: int = 8
) -> str:
    """What `fastchat.serve.test_message` prints; needs `Tier.WORKER`."""
    module = [str(environment.python), "-m", "fastchat.serve.test_message"]
    where = ["--controller-address", controller_url, "--model-name", model]
    what = ["--message", message, "--max-new-tokens", str(max_new_tokens)]
    done = subprocess.run(
        [*module, *where, *what],
        capture_output=True,
        env=_clean_environ({}),
        timeout=120,
        check=False,
        text=True,
    )
    if done.returncode:
        raise FschatError(f"test_message: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def start_service(
    environment: Environment,
    logs: Path,
    name: str,
    command: Callable[[str, int], Sequence[str]],
    probe: str,
    *,
    method: str = "GET",
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
    patience: float = 120.0,
    listening: str = LISTENING,
) -> Service:
    """Start `python *command(url, port)` and wait until `probe` answers 200.

    The way for programs not named above, such as a script with a subclass of `BaseModelWorker`,
    as long as uvicorn serves them and logs at its usual level, or they say `listening`.
    Without a `port` a free one is taken, and another one should it be lost to someone else.
    """
    logs.mkdir(parents=True, exist_ok=True)
    attempts = PORT_ATTEMPTS if port is None else 1
    while True:
        attempts -= 1
        service = _spawn(environment, logs, name, command, port or free_ports(1)[0], environ or {})
        try:
            _wait_until_answering(service, probe, method, patience, listening)
        except FschatError:
            service.stop()
            if attempts and PORT_TAKEN in _tail(service.log):
                continue
            raise
        except BaseException:
            service.kill()
            raise
        return service


def _spawn(
    environment: Environment,
    logs: Path,
    name: str,
    command: Callable[[str, int], Sequence[str]],
    port: int,
    environ: Mapping[str, str],
) -> Service:
    url = f"http://127.0.0.1:{port}"
    log = logs / f"fschat-{name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(environment.python), *command(url, port)],
            cwd=logs,
            env=_clean_environ(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Service(name, url, log, process)


def _wait_until_answering(
    service: Service, probe: str, method: str, patience: float, listening: str
) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        said = service.log.read_text("utf-8", "replace")
        # A controller that cannot bind does not end: its heartbeat thread holds it.
        if not service.running() or PORT_TAKEN in said:
            raise FschatError(f"{service.name} did not start\n{_tail(service.log)}")
        if listening in said:
            try:
                ask(service.url + probe, method=method)
            except (OSError, http.client.HTTPException):
                pass
            else:
                return
        time.sleep(0.1)
    raise FschatError(f"{service.name} did not answer within {patience} s\n{_tail(service.log)}")


def wait_for_model(controller_url: str, model: str, patience: float = 60.0) -> None:
    """Wait until a controller, fschat's or one that speaks like it, lists `model`."""
    deadline = time.monotonic() + patience
    while True:
        models = ask(controller_url + "/list_models", method="POST")["models"]
        if model in models:
            return
        if time.monotonic() > deadline:
            raise FschatError(f"{model} is not among {models} after {patience} s")
        time.sleep(0.1)


def ask(url: str, body: Any = None, *, method: str = "POST", timeout: float = 30.0) -> Any:
    """One JSON call, past any proxy; an HTTP error is raised as urllib's, an `OSError`."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _clean_environ(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would lead fschat elsewhere."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "LOGDIR": "",  # no log files beside the one we redirect to
        "NETRC": os.devnull,  # requests would send what stands there for a host
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])
