"""``transformers serve --continuous-batching``: a process of its own, asked over HTTP."""

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import Process, cpu_seconds, free_port, resident_bytes

BATCH_TOKENS, BLOCK, BLOCKS = 512, 64, 1024
"""The same room and the same tokens a step as ours: what it chooses by itself is far from it."""


class Served:
    """Answers jobs as the children do."""

    def __init__(self, folder: Path, device: str, log: Path, threads: int) -> None:
        self._port = free_port()
        self._model = str(folder)
        command = [
            *(str(Path(sys.executable).parent / "transformers"), "serve", self._model),
            *("--continuous-batching", "--device", device, "--port", str(self._port)),
            *("--cb-num-blocks", str(BLOCKS), "--cb-block-size", str(BLOCK)),
            *("--cb-max-batch-tokens", str(BATCH_TOKENS), "--log-level", "error"),
        ]
        env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self._process = Process(command, log, env=env)
        self._process.wait_for(f"http://localhost:{self._port}/health", timeout=180)
        self._most = 0
        self._pause()

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """A wave, or a newcomer among others."""
        os.kill(self._process.pid, signal.SIGCONT)
        try:
            return self._newcomer(job) if job["kind"] == "newcomer" else self._wave(job)
        finally:
            self._pause()

    def close(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
        self._process.stop()

    def _pause(self) -> None:
        """It looks for work all the time, at the cost of those whose turn it is."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def _wave(self, job: dict[str, Any]) -> dict[str, Any]:
        spent, start = cpu_seconds([self._process.pid]), time.perf_counter()
        firsts = self._ask([(text, job["tokens"], None) for text in job["texts"]])
        self._most = max(self._most, resident_bytes([self._process.pid]))
        return {
            "seconds": time.perf_counter() - start,
            "cpu": cpu_seconds([self._process.pid]) - spent,
            "firsts": firsts,
            "memory": self._most,
        }

    def _newcomer(self, job: dict[str, Any]) -> dict[str, Any]:
        gate = threading.Barrier(len(job["texts"]))
        found: list[float] = []

        def late() -> None:
            gate.wait()
            found.extend(self._ask([(job["texts"][-1], 4, None)]))

        thread = threading.Thread(target=late)
        thread.start()
        self._ask([(text, job["tokens"], gate.wait) for text in job["texts"][:-1]])
        thread.join()
        return {"newcomer": {"seconds": found[0]}}

    def _ask(self, requests: list[tuple[str, int, Callable[[], Any] | None]]) -> list[float]:
        firsts = [0.0] * len(requests)

        def client(place: int) -> None:
            firsts[place] = self._stream(*requests[place])

        threads = [threading.Thread(target=client, args=(at,)) for at in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not all(firsts):
            raise RuntimeError("transformers serve left a request without an answer")
        return firsts

    def _stream(self, text: str, tokens: int, begun: Callable[[], Any] | None) -> float:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
        start, first = time.perf_counter(), 0.0
        connection = http.client.HTTPConnection("localhost", self._port, timeout=600)
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        for line in connection.getresponse():
            if not first and b'"content"' in line:
                first = time.perf_counter() - start
                if begun is not None:
                    begun()
        connection.close()
        return first
