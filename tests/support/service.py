"""The real service: a launcher and its children, with files and ports of their own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_ports
from tests.support.processes import Process, gone

ROOT = Path(__file__).resolve().parents[2]
SECRET = "the cluster's secret, for tests"
AUTH = {"authorization": f"Bearer {SECRET}"}
GGUF = "tiny-chat.gguf"
STOP_TIMEOUT = 40.0
_OURS = ("OPSGPT", "MODEL_", "MMPROJ_PATH", "LLM_BASE_URL")


class Service:
    """One launcher, its files in ``folder``. ``fields`` are keys of the configuration.

    ``command`` is what is run, after ``prefix`` (``ip netns exec ...``). Ports count from
    ``port``: the gateway, the controller, the workers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = ("start.py",),
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
        environ: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        self.port = free_ports(10)[0]
        self._base = f"http://{host}"
        self.gateway = f"{self._base}:{self.port}"
        self.controller = f"{self._base}:{self.port + 1}"
        self.output = folder / "output.txt"
        self._folder = folder
        self._argv = [*prefix, sys.executable, *command, "--config", str(folder)]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        self._environ = inherited | {
            "OPSGPT_SECRET": SECRET,
            "XDG_RUNTIME_DIR": str(folder),
            **(environ or {}),
        }
        self._popen: subprocess.Popen[bytes] | None = None
        self._seen: set[Process] = set()
        config = self._defaults(host) | fields
        default = config["FSCHAT_MODEL_WORKERS"].setdefault("default", {})
        default |= {"port": self.port + 2, "n_threads": 1}
        (folder / "local_config.json").write_text(json.dumps(config))

    def _defaults(self, host: str) -> dict[str, Any]:
        return {
            "LLM_MODEL": "tiny-chat",
            "LLM_MODELs": ["tiny-chat"],
            "LLM_DEVICE": "cpu",
            "llm_model_dict": {"tiny-chat": {"local_model_path": GGUF}},
            "DEFAULT_BIND_HOST": host,
            "FSCHAT_CONTROLLER": {"port": self.port + 1},
            "FSCHAT_OPENAI_API": {"port": self.port},
            "FSCHAT_MODEL_WORKERS": {},
            "LOG_DIR": str(self._folder / "logs"),
            "DRAIN_TIMEOUT": 15.0,
        }

    def worker(self, number: int) -> str:
        """URL of a worker; 0 is the first."""
        return f"{self._base}:{self.port + 2 + number}"

    @property
    def launcher(self) -> Process:
        """The launcher's process."""
        assert self._popen is not None
        return Process(self._popen.pid, self._born)

    def children(self, role: str | None = None, model: str | None = None) -> list[Process]:
        """The launcher's living children: all, those of a role, or those that serve a model."""
        found = [(child, child.argv) for child in self.launcher.children()]
        self._seen.update(child for child, _ in found)
        return [
            child
            for child, argv in found
            if (role is None or role in argv) and (model is None or model in argv)
        ]

    def start(self) -> None:
        """Starts it; ``ready`` tells when it serves."""
        with self.output.open("wb") as output:
            self._popen = subprocess.Popen(
                self._argv,
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        found = Process.of(self._popen.pid)
        assert found is not None
        self._born = found.born

    def wait(self, seconds: float = STOP_TIMEOUT) -> int:
        """The launcher's exit code, once it has ended."""
        assert self._popen is not None
        return self._popen.wait(seconds)

    def stop(self) -> None:
        """Ends it, the hard way where it does not go by itself; nothing of it is left."""
        if self._popen is None:
            return
        self.children()
        self.launcher.send(signal.SIGTERM)
        for process in self._seen:
            process.send(signal.SIGCONT)
        try:
            self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        gone(self._seen, 8.0)
        for process in self._seen:
            process.send(signal.SIGKILL)

    def logs(self) -> str:
        """All that the launcher and its children have said."""
        files = [self.output, *sorted((self._folder / "logs").glob("*.log"))]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')}" for file in files)

    # What the parts say over HTTP.

    def replicas(self, model: str = "tiny-chat") -> int:
        """How many replicas the gateway chooses from."""
        found: int = httpx.get(f"{self.gateway}/health", timeout=20).json()["models"].get(model, 0)
        return found

    def health(self, number: int = 0) -> dict[str, Any]:
        """What a worker says of itself; 0 is the first."""
        found: dict[str, Any] = httpx.get(f"{self.worker(number)}/health", timeout=20).json()
        return found

    def workers(self) -> list[dict[str, Any]]:
        """The controller's table."""
        answer = httpx.get(f"{self.controller}/list_workers", headers=AUTH, timeout=20)
        found: list[dict[str, Any]] = answer.json()["workers"]
        return found

    async def release(self, model: str, new: str | None = None, *, keep: bool = False) -> None:
        """``/release_worker``, which must succeed."""
        body = {"model_name": model, "new_model_name": new, "keep_origin": keep}
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{self.controller}/release_worker", json=body, headers=AUTH)
        assert answer.json()["code"] == 200, answer.text

    async def expect(
        self, replicas: int, model: str = "tiny-chat", *, seconds: float = 60.0
    ) -> float:
        """Waits until the gateway sees so many replicas of a model; the seconds it took."""
        return await until(lambda: self.replicas(model) == replicas, seconds)


async def until(holds: Callable[[], bool], seconds: float) -> float:
    """Waits until something holds, and gives the seconds it took. One that cannot be asked does
    not hold. Raises ``TimeoutError``."""
    began = time.monotonic()
    while True:
        try:
            if await asyncio.to_thread(holds):
                return time.monotonic() - began
        except httpx.TransportError:
            pass
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not so after {seconds:g} s")
        await asyncio.sleep(0.05)


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Service]:
    """Runs a service; whatever happens, nothing of it is left afterwards."""
    service = Service(folder, **options)
    try:
        service.start()
        yield service
    except BaseException:
        print(service.logs())
        raise
    finally:
        service.stop()
