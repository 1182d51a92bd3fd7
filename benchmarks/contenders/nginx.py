"""nginx as a reverse proxy: one worker process, kept connections, streams passed on at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.contender import Target
from benchmarks.processes import Process, free_port
from benchmarks.tools import nginx_version, path_of
from benchmarks.upstream import nginx_config


class Nginx:
    """Debian's nginx."""

    name = "nginx as a reverse proxy"
    rewrites = False
    heavy = False

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self._process: Process | None = None

    def version(self) -> str:
        """As it says."""
        return nginx_version()

    def start(self, upstream: Target, folder: Path) -> None:
        """Returns when it answers."""
        port = free_port()
        conf = folder / "nginx.conf"
        conf.write_text(_config(folder, port, urlsplit(upstream.url).netloc))
        log = folder / "nginx.log"
        self._process = Process([path_of("nginx"), "-e", str(log), "-c", str(conf)], log)
        self.url = f"http://127.0.0.1:{port}/v1"
        self._process.wait_for(f"{self.url}/models")

    def pids(self) -> Sequence[int]:
        """The master; its worker is its child."""
        return [self._process.pid] if self._process is not None else []

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.stop()


def _config(folder: Path, port: int, upstream: str) -> str:
    return nginx_config(
        folder,
        f"""  upstream model {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    client_body_buffer_size 1m;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}""",
    )
