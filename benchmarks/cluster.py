"""Our own controller and gateway, run as the launcher runs them, each a process of its own."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import Process, free_port

ENTRY = (sys.executable, "-m", "dev_opsgpt.launcher.children")
NO_MODELS = 'LLM_MODEL = ""\nLLM_MODELs = []\n'


class Cluster:
    """A controller and a gateway with ``settings`` (as in local_config.json), and whatever else
    is run beside them. Callers need ``client_key``, where one is given."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], client_key: str = "") -> None:
        self._folder = folder
        self._processes: list[Process] = []
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
        (folder / "local_config.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Returns when the controller answers; the gateway follows. Raises ``StartFailed``."""
        port = str(self.controller_port)
        self.run([*ENTRY, "controller", "--port", port], "controller").wait_for(
            f"{self.controller}/health"
        )
        port = str(self.gateway_port)
        self.run([*ENTRY, "gateway", "--port", port, "--controller", self.controller], "gateway")

    def run(self, argv: Sequence[str], name: str) -> Process:
        """Starts one more process with the cluster's configuration and secret."""
        process = Process(argv, self._folder / f"{name}.log", env=self._env)
        self._processes.append(process)
        return process

    def wait_for(self, model: str) -> None:
        """Returns when the gateway can route to a model. Raises ``StartFailed``."""
        self._processes[1].wait_for(f"{self.gateway}/health", contains=f'"{model}"')

    def pids(self) -> list[int]:
        """Controller and gateway."""
        return [process.pid for process in self._processes[:2]]

    def stop(self) -> None:
        """Ends all, the last one first."""
        while self._processes:
            self._processes.pop().stop()
