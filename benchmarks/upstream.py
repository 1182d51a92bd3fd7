"""The servers that stand for a model: nginx for canned answers, ``mock.py`` for streams.

nginx could send a canned stream too, as a file; but in one piece of known length, which costs a
router far less to pass on than the chunks that a model's server sends one by one.
"""

import sys
from pathlib import Path

import msgspec

from benchmarks.contender import MODEL, Kind, Target
from benchmarks.processes import Process, free_port
from benchmarks.tools import path_of

ANSWER_BYTES = 550
CHAT = b"/v1/chat/completions"


def answer() -> bytes:
    """A chat completion of exactly ``ANSWER_BYTES`` bytes."""
    value = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 50, "total_tokens": 61},
    }
    bare = msgspec.json.encode(value)
    words = ("a model's words " * 40)[: ANSWER_BYTES - len(bare)]
    return bare.replace(b'"content":""', b'"content":"%b"' % words.encode())


def text() -> str:
    """The text in that answer."""
    content = msgspec.json.decode(answer())["choices"][0]["message"]["content"]
    return str(content)


def listing() -> bytes:
    """The answer of ``/v1/models``."""
    entry = {"id": MODEL, "object": "model", "created": 1700000000, "owned_by": "benchmarks"}
    return msgspec.json.encode({"object": "list", "data": [entry]})


class Upstream:
    """One running mock; ``target`` is what contenders are given."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        port = free_port()
        self.target = Target(f"http://127.0.0.1:{port}/v1", kind)
        log = folder / f"upstream-{kind}.log"
        if kind == "plain":
            conf = folder / "upstream.conf"
            conf.write_text(_config(port, folder))
            argv = [path_of("nginx"), "-e", str(log), "-c", str(conf)]
        else:
            argv = [sys.executable, "-m", "benchmarks.mock", kind, str(port)]
        self._process = Process(argv, log)

    def wait(self) -> None:
        """Returns when it answers. Raises ``StartFailed``."""
        self._process.wait_for(f"{self.target.url}/models")

    def stop(self) -> None:
        """Ends it."""
        self._process.stop()


def nginx_config(folder: Path, server: str) -> str:
    """A whole nginx configuration around the inside of ``http {}``: one worker process, files in
    ``folder``, connections kept."""
    temporary = "\n".join(
        f"  {name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
{temporary}
{server}
}}
"""


def _config(port: int, folder: Path) -> str:
    return nginx_config(
        folder,
        f"""  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    location = /v1/models {{ return 200 '{listing().decode()}'; }}
    location = /health {{ return 200 '{{"status":"ok"}}'; }}
    location = /v1/chat/completions {{ return 200 '{_quoted(answer())}'; }}
  }}""",
    )


def _quoted(data: bytes) -> str:
    return data.decode().replace("'", "\\'")
