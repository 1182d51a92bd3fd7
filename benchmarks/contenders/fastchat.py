"""FastChat's own controller and gateway, in front of a server that speaks its workers' dialect.

The upstream cannot do that, so ``fastchat_mock.py`` takes its place and says the same text at the
same pace. The CPU time of controller and gateway counts.
"""

import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contender import MODEL, Target
from benchmarks.contenders.program import START, clean_environ
from benchmarks.environment import Environment
from benchmarks.processes import Process, StartFailed, free_port

# With the pydantic of its own time, without which it does not stream.
REQUIREMENTS = Path(__file__).parents[2] / "tests" / "compat" / "requirements-fschat.txt"


class FastChat:
    """It takes answers apart and writes them anew."""

    name = "FastChat gateway"
    rewrites = True
    heavy = True

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self._environment = Environment("fschat", REQUIREMENTS)
        self._processes: list[Process] = []
        self._stack = ExitStack()

    def version(self) -> str:
        """As its requirements fix it."""
        return self._environment.version("fschat")

    def start(self, upstream: Target, folder: Path) -> None:
        """Returns when its gateway lists the model."""
        self._environment.ensure()
        worker = f"http://127.0.0.1:{self._mock(upstream, folder)}"
        controller = f"http://127.0.0.1:{(port := free_port())}"
        self._module("controller", port, [], folder).wait_for(
            f"{controller}/test_connection", timeout=START
        )
        _register(controller, worker)
        options = ["--controller-address", controller]
        gateway = self._module("openai_api_server", port := free_port(), options, folder)
        self.url = f"http://127.0.0.1:{port}/v1"
        gateway.wait_for(f"{self.url}/models", contains=f'"{MODEL}"', timeout=START)

    def _mock(self, upstream: Target, folder: Path) -> int:
        port = free_port()
        argv = [sys.executable, "-m", "benchmarks.fastchat_mock", upstream.kind, str(port)]
        process = Process(argv, folder / "worker.log")
        self._stack.callback(process.stop)
        process.wait_for(f"http://127.0.0.1:{port}/worker_get_status")
        return port

    def _module(self, name: str, port: int, options: Sequence[str], folder: Path) -> Process:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        argv = [self._environment.program("python"), "-m", f"fastchat.serve.{name}"]
        # Without a folder for logs it writes none beside what it prints.
        environ = clean_environ({"LOGDIR": ""})
        process = Process(
            [*argv, *where, *options], folder / f"{name}.log", env=environ, cwd=folder
        )
        self._stack.callback(process.stop)
        self._processes.append(process)
        return process

    def pids(self) -> Sequence[int]:
        """Controller and gateway."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """Ends them and the worker."""
        self._stack.close()


def _register(controller: str, worker: str) -> None:
    """As a worker that does not beat, so that it is never thought lost."""
    status = {"model_names": [MODEL], "speed": 1, "queue_length": 0}
    body = {"worker_name": worker, "check_heart_beat": False, "worker_status": status}
    request = urllib.request.Request(
        f"{controller}/register_worker", data=json.dumps(body).encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            reply.read()
    except OSError as error:
        raise StartFailed(f"FastChat's controller takes no worker: {error}") from None
