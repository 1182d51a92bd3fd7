"""A real service in a folder of its own: free ports, its own configuration, its own run file."""

import json
import os
import pprint
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0


def until(holds: Any, what: str, seconds: float = PATIENCE) -> Any:
    """Waits for a condition and gives its value."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.05)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Place:
    """A configuration folder, its ports, and the environment for commands."""

    def __init__(self, folder: Path, *, online: dict[str, Any] | None = None, **keys: Any) -> None:
        self.folder = folder / "configs"
        self.folder.mkdir()
        (folder / "run").mkdir()
        self.logs = folder / "logs"
        # From the last one on models without a port of their own are counted.
        self.controller, self.gateway, *rest, self.worker = free_ports(18)[:8]
        online = online or {}
        workers: dict[str, Any] = {"default": {"port": self.worker, "n_ctx": 1024}}
        workers |= {name: {"port": port} for name, port in zip(online, rest, strict=False)}
        workers |= keys.pop("workers", {})
        values = {
            "LLM_MODEL": "tiny-chat",
            "LLM_MODELs": ["tiny-chat"],
            "llm_model_dict": {"tiny-chat": {"local_model_path": "tiny-chat.gguf"}},
            "ONLINE_LLM_MODEL": online,
            "FSCHAT_CONTROLLER": {"port": self.controller},
            "FSCHAT_OPENAI_API": {"port": self.gateway} | keys.pop("FSCHAT_OPENAI_API", {}),
            "FSCHAT_MODEL_WORKERS": workers,
            "DRAIN_TIMEOUT": 15.0,
        }
        self.values = values | keys
        self.write()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPSGPT", "OPENAI"))}
        self.environ = {
            **kept,
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "OPSGPT_CONFIG_DIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
        }

    def write(self) -> None:
        """Writes ``values`` to the two files, where these are not so already."""
        values = self.values
        model_keys = [k for k in values if k.lower().startswith(("llm", "online", "use"))]
        for file, chosen in (
            ("model_config.py", model_keys),
            ("server_config.py", [k for k in values if k not in model_keys]),
        ):
            text = "".join(f"{key} = {pprint.pformat(values[key])}\n" for key in chosen)
            path = self.folder / file
            if not path.exists() or path.read_text() != text:
                path.write_text(text)

    @property
    def base_url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self.gateway}/v1"

    def command(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        return subprocess.run(
            [sys.executable, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=PATIENCE,
            cwd=self.folder,
        )

    def opsgpt(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs an ``opsgpt`` command to its end."""
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from dev_opsgpt.cli import main"
        return self.command("-c", f"{code}; main()", *words, stdin=stdin)

    def reload(self, *, ok: bool = True) -> str:
        """What ``opsgpt reload`` says of ``values``."""
        self.write()
        done = self.opsgpt("reload")
        assert done.returncode == (0 if ok else 1), done
        return done.stdout

    def running(self) -> dict[str, Any]:
        """What the run file says."""
        (path,) = (Path(self.environ["XDG_RUNTIME_DIR"]) / "opsgpt").glob("*.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @contextmanager
    def start(self, *flags: str, script: str = "start.py") -> "Iterator[Service]":
        """Runs a launcher for as long as the context lasts."""
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environ,
            cwd=self.folder,
        )
        service = Service(self, process)
        try:
            yield service
        finally:
            service.end()


class Answer(threading.Thread):
    """A stream in flight: started, and read to its end beside the test."""

    def __init__(self, service: "Service", model: str) -> None:
        super().__init__()
        self.url = f"{service.place.base_url}/chat/completions"
        self.body = {
            "model": model,
            "messages": [{"role": "user", "content": "?"}],
            "stream": True,
        }
        self.began = threading.Event()
        self.lines: list[str] = []
        self.start()
        assert self.began.wait(30)

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", self.url, json=self.body, timeout=30, trust_env=False
            ) as response:
                for line in response.iter_lines():
                    self.lines.append(line)
                    self.began.set()
        except httpx.HTTPError as error:
            self.lines.append(type(error).__name__)
        self.began.set()

    def whole(self) -> bool:
        """Whether it has come to its end, with all of its words; waits for it."""
        self.join(PATIENCE)
        words = [line for line in self.lines if '"w' in line]
        assert "data: [DONE]" in self.lines, self.lines
        return len(words) == len(set(words)) >= 10


class Service:
    """A running launcher, and what it has said."""

    def __init__(self, place: Place, process: "subprocess.Popen[str]") -> None:
        self.place = place
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def said(self) -> str:
        """Everything so far."""
        return "".join(self.lines)

    def expect(self, text: str) -> str:
        """Waits until it has said something."""
        until(lambda: text in self.said or self.process.poll() is not None, f"{text} in {self}")
        assert text in self.said, self.said
        return self.said

    def ready(self) -> "Service":
        """Waits for the closing table."""
        self.expect("Ctrl-C stops everything.")
        return self

    def children(self) -> dict[str, int]:
        """Its children now: their command line from the role on, and their process id."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                words = (path / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if int(parent) == self.process.pid and "dev_opsgpt.launcher.children" in words:
                role = words[words.index("dev_opsgpt.launcher.children") + 1 :]
                found[" ".join(role)] = int(path.name)
        return found

    def roles(self, role: str) -> list[int]:
        """The process ids of the children with this role."""
        return [pid for line, pid in self.children().items() if line.split()[0] == role]

    def child(self, role: str) -> int | None:
        """The process id of the child with this role, or with this word on its command line."""
        return next((pid for line, pid in self.children().items() if role in line.split()), None)

    def ask(self, model: str = "tiny-chat", **fields: Any) -> httpx.Response:
        """A chat through the gateway."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **fields}
        url = f"{self.place.base_url}/chat/completions"
        return httpx.post(url, json=body, timeout=PATIENCE, trust_env=False)

    def status(self, model: str, key: str | None = None) -> int:
        """The status of a stream's answer, of which nothing is read but the beginning."""
        body = {"model": model, "messages": [{"role": "user", "content": "?"}], "stream": True}
        url = f"{self.place.base_url}/chat/completions"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with httpx.stream(
            "POST", url, json=body, headers=headers, timeout=PATIENCE, trust_env=False
        ) as answer:
            next(answer.iter_raw(), b"")
            return answer.status_code

    def controller(self, path: str, body: Any = None) -> Any:
        """A call to the controller with its secret: POST with a body, GET without."""
        running = self.place.running()
        method = "GET" if body is None else "POST"
        headers = {"authorization": f"Bearer {running['secret']}"}
        url = running["controller"] + path
        response = httpx.request(
            method, url, json=body, headers=headers, timeout=PATIENCE, trust_env=False
        )
        assert response.status_code == 200, response.text
        return response.json()

    def models(self) -> dict[str, str]:
        """The address of each model that the controller knows."""
        rows = self.controller("/list_workers")["workers"]
        return {model: row["address"] for row in rows for model in row["models"]}

    def signal(self, sign: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(sign)

    def wait(self) -> int:
        """Its exit code, and all it has said is in ``lines``."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def end(self) -> None:
        """Stops it, the hard way if need be."""
        pids = list(self.children().values())
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __repr__(self) -> str:
        return re.sub(r"\n", "\n  ", f"output:\n{self.said}")
