"""Names on the hub, against a server on this machine that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dev_opsgpt.engines.hf.source import kind_of_model
from dev_opsgpt.worker.engine import EngineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import json, sys
from dev_opsgpt.engines.hf.source import folder_of, kind_of_model
from dev_opsgpt.worker.engine import EngineError
told = []
try:
    kind = kind_of_model(sys.argv[1])
    folder = folder_of(
        sys.argv[1], code=False, progress=lambda text, done: told.append((text, done))
    )
except EngineError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"kind": kind, "folder": str(folder), "told": told}))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers for one repository, ``owner/tiny``; ``folder`` holds its files."""

    folder: Path

    def do_GET(self) -> None:
        """A file, or what the repository has."""
        files = sorted(self.folder.iterdir())
        if self.path.startswith("/api/models/owner/tiny/tree/"):
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                for f in files
            ]
            self._send(200, json.dumps(tree).encode(), {"content-type": "application/json"})
        elif self.path.startswith("/api/models/owner/tiny/"):
            names = [{"rfilename": file.name} for file in files]
            about = {"id": "owner/tiny", "sha": COMMIT, "siblings": names}
            self._send(200, json.dumps(about).encode(), {"content-type": "application/json"})
        else:
            self._file(body=True)

    def do_HEAD(self) -> None:
        """What is known of a file."""
        self._file(body=False)

    def _file(self, *, body: bool) -> None:
        file = self.folder / self.path.rpartition("/")[2]
        if not self.path.startswith("/owner/tiny/resolve/") or not file.is_file():
            code = "EntryNotFound" if "owner/tiny" in self.path else "RepoNotFound"
            self._send(404, b"", {"x-error-code": code})
            return
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"etag": etag, "x-repo-commit": COMMIT}, body=body)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(llama: Path) -> Iterator[str]:
    handler = type("Ours", (Hub,), {"folder": llama})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(name: str, home: Path, **environment: str) -> dict[str, object]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_a_model_is_downloaded_once(hub: str, llama: Path, tmp_path: Path) -> None:
    told = ask("owner/tiny", tmp_path, HF_ENDPOINT=hub)
    assert told.get("kind") == "causal", told
    folder = Path(str(told["folder"]))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in llama.iterdir()
    }
    steps = told["told"]
    assert isinstance(steps, list)
    assert ["looking for owner/tiny on the hub", 0.0] in steps
    assert any(text == "downloading owner/tiny" and done > 0 for text, done in steps)
    assert ask("owner/tiny", tmp_path, HF_HUB_OFFLINE="1")["folder"] == str(folder)


def test_what_cannot_be_downloaded_is_told_in_one_line(hub: str, tmp_path: Path) -> None:
    error = str(ask("owner/other", tmp_path, HF_ENDPOINT=hub)["error"])
    assert error.startswith("The model owner/other is no folder here, and could not be downloaded")
    assert "the hub has no such model" in error
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        error = str(ask("owner/tiny", tmp_path, **environment)["error"])
        assert "the hub cannot be reached and the model was not downloaded before" in error
        assert "\n" not in error


def test_the_kind_of_a_folder(llama: Path, tmp_path: Path) -> None:
    assert kind_of_model(llama) == "causal"
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (tmp_path / "modules.json").write_text("[]")
    assert kind_of_model(str(tmp_path)) == "encoder"
    with pytest.raises(EngineError, match="There is no folder"):
        kind_of_model(tmp_path / "gone")
