"""Our own controller and gateway, run as the launcher runs them, each a process of its own."""

import json
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import Process, StartFailed, answers, free_port, listeners

ENTRY = (sys.executable, "-m", "dev_opsgpt.launcher.children")
START = 120.0
TRIES = 20
NO_MODELS = 'LLM_MODEL = ""\nLLM_MODELs = []\n'


class Cluster:
    """A controller and a gateway with ``settings`` (as in local_config.json), and whatever else
    is run beside them. Callers need ``client_key``, where one is given."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], client_key: str = "") -> None:
        self._folder = folder
        self._processes: list[Process] = []
        self._controllers: list[Process] = []
        self._gateways: list[Process] = []
        self._wanted = int(settings.get("FSCHAT_OPENAI_API", {}).get("gateway_workers", 1))
        self._env = {"OPSGPT_CONFIG_DIR": str(folder), "OPSGPT_SECRET": secrets.token_urlsafe(32)}
        self.headers: dict[str, str] = {}
        if client_key:
            self._env["OPSGPT_API_KEYS"] = client_key
            self.headers["authorization"] = f"Bearer {client_key}"
        self.controller_port, self.gateway_port = free_port(), free_port()
        self.controller = f"http://127.0.0.1:{self.controller_port}"
        self.gateway = f"http://127.0.0.1:{self.gateway_port}"
        (folder / "model_config.py").write_text(NO_MODELS)
        (folder / "server_config.py").write_text("")
        own = {"DATA_DIR": str(folder / "data"), **settings}
        (folder / "local_config.json").write_text(json.dumps(own))

    def start(self) -> None:
        """Returns when the controller answers; the gateway follows. Raises ``StartFailed``."""
        self.start_controller()
        self.start_gateway()

    def start_controller(self) -> None:
        """Returns when it answers. Raises ``StartFailed``."""
        port = str(self.controller_port)
        process = self.run([*ENTRY, "controller", "--port", port], "controller")
        self._controllers.append(process)
        process.wait_for(f"{self.controller}/health")

    def start_gateway(self) -> None:
        """Starts as many gateways as the settings want, all on one port; returns at once."""
        run_dir = self._folder / "run"
        run_dir.mkdir(mode=0o700)
        where = ["--port", str(self.gateway_port), "--controller", self.controller]
        for index in range(self._wanted):
            place = ["--index", str(index), "--count", str(self._wanted)]
            argv = [*ENTRY, "gateway", *where, *place, "--runtime-dir", str(run_dir)]
            self._gateways.append(self.run(argv, f"gateway-{index}"))

    def run(self, argv: Sequence[str], name: str) -> Process:
        """Starts one more process with the cluster's configuration and secret."""
        process = Process(argv, self._folder / f"{name}.log", env=self._env)
        self._processes.append(process)
        return process

    def wait_for(self, model: str, replicas: int = 1) -> None:
        """Returns when the gateways can route to so many replicas of a model. Raises
        ``StartFailed``."""
        url, known = f"{self.gateway}/health", f'"{model}":{replicas}'
        self._gateways[0].wait_for(url, contains=known, timeout=START)
        self._wait_for_all(lambda: listeners(self.gateway_port) == self._wanted)
        self._wait_for_all(lambda: answers(url, known, {}))

    def _wait_for_all(self, holds: Callable[[], bool]) -> None:
        """The kernel chooses which gateway answers: what holds so many times in a row holds for
        all of them."""
        if self._wanted == 1:
            return
        deadline = time.monotonic() + START
        row = 0
        while row < TRIES:
            row = row + 1 if holds() else 0
            if time.monotonic() > deadline:
                raise StartFailed(f"not all of {self._wanted} gateways are ready")

    def wait_for_workers(self, count: int) -> None:
        """Returns when the controller knows so many. Raises ``StartFailed``."""
        self._controllers[0].wait_for(
            f"{self.controller}/health", contains=f'"workers":{count},', timeout=START
        )

    def virtual_key(self, **limits: int) -> str:
        """Makes a key through the admin API; returns when all gateways take it. Raises
        ``StartFailed``."""
        request = urllib.request.Request(
            f"{self.gateway}/admin/keys",
            data=json.dumps({"name": "benchmark", **limits}).encode(),
            headers={
                "content-type": "application/json",
                "authorization": f"Bearer {self._env['OPSGPT_SECRET']}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                key = str(json.load(reply)["key"])
        except (OSError, LookupError, ValueError) as error:
            raise StartFailed(f"the gateway makes no virtual key: {error}") from None
        headers = {"authorization": f"Bearer {key}"}
        self._wait_for_all(lambda: answers(f"{self.gateway}/v1/models", "", headers))
        return key

    def controller_pids(self) -> list[int]:
        """The controller."""
        return [process.pid for process in self._controllers]

    def gateway_pids(self) -> list[int]:
        """The gateways."""
        return [process.pid for process in self._gateways]

    def stop(self) -> None:
        """Ends all, the last one first."""
        while self._processes:
            self._processes.pop().stop()
