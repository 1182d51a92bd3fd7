"""A provider that takes its time."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class SlowModel(BaseHTTPRequestHandler):
    """An OpenAI server that streams ten words, one every 0.2 s; twenty where the model is called
    "m-20"."""

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = int(body["model"].partition("-")[2] or 10)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for number in range(words):
            choice = {"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            self.send({**chunk, "choices": [choice]})
            threading.Event().wait(0.2)
        self.send({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, chunk: dict[str, object]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serve_slow_model() -> Iterator[dict[str, str]]:
    """Serves it and gives its ``ONLINE_LLM_MODEL`` entry."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowModel)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield {"version": "m", "api_base_url": url, "api_key": "EMPTY", "provider": "ExampleWorker"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
