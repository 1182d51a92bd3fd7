"""What our path costs a real model: tokens a second through gateway, worker and llama.cpp engine,
beside llama.cpp's own HTTP server on the same file, on the same cores, in the same minutes."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.cluster import ENTRY, Cluster
from benchmarks.load import LoadFailed
from benchmarks.processes import Process, free_port
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.transport.client import Client, Origin

MODEL = "tiny-chat"
FILE = Path(__file__).parents[1] / "llm_models" / "tiny-chat.gguf"
CONCURRENT = (1, 8)
MAX_TOKENS = 128


class TokenFigures(msgspec.Struct, frozen=True):
    """Generated tokens a second with so many requests at a time, the median of the rounds."""

    concurrent: int
    raw: float
    ours: float


def measure(
    folder: Path, *, rounds: int, seconds: int, say: Callable[[str], None]
) -> list[TokenFigures]:
    """Both paths, in turn. Raises ``StartFailed``, ``LoadFailed``."""
    folder.mkdir(parents=True)
    body = request_body()
    with ExitStack() as stack:
        raw = _start_raw(folder, stack)
        ours = _start_ours(folder, stack)
        urls = {"raw": raw, "ours": ours}
        for url in urls.values():
            asyncio.run(tokens_per_second(url, body, 1, 0.5))
        found = []
        for concurrent in CONCURRENT:
            rates: dict[str, list[float]] = {name: [] for name in urls}
            for number in range(rounds):
                for name, url in urls.items():
                    say(f"engine, {concurrent} at a time, round {number + 1} of {rounds}: {name}")
                    rate = asyncio.run(tokens_per_second(url, body, concurrent, seconds))
                    rates[name].append(rate)
            middle = {name: statistics.median(values) for name, values in rates.items()}
            found.append(TokenFigures(concurrent, middle["raw"], middle["ours"]))
    return found


def _start_raw(folder: Path, stack: ExitStack) -> str:
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "benchmarks.raw_llama",
        str(FILE),
        str(port),
        str(max(CONCURRENT)),
    ]
    process = Process(argv, folder / "raw.log")
    stack.callback(process.stop)
    process.wait_for(f"http://127.0.0.1:{port}/health")
    return f"http://127.0.0.1:{port}/v1"


def _start_ours(folder: Path, stack: ExitStack) -> str:
    settings = {
        "llm_model_dict": {MODEL: {"local_model_path": str(FILE)}},
        "FSCHAT_MODEL_WORKERS": {"default": {"limit_worker_concurrency": max(CONCURRENT)}},
    }
    cluster = Cluster(folder, settings)
    stack.callback(cluster.stop)
    cluster.start()
    argv = [*ENTRY, "engine", "--controller", cluster.controller, "--model", MODEL]
    cluster.run([*argv, str(free_port())], "engine")
    cluster.wait_for(MODEL)
    return f"{cluster.gateway}/v1"


def request_body() -> bytes:
    """A streamed request whose answer does not end before ``MAX_TOKENS``, so that both sides
    generate the same number of tokens."""
    end = Gguf(FILE).metadata["tokenizer.ggml.eos_token_id"]
    value = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello! What is your name?"}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "logit_bias": {str(end): -100},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return msgspec.json.encode(value)


async def tokens_per_second(url: str, body: bytes, concurrent: int, seconds: float) -> float:
    """The rate over about ``seconds``; streams that run then are read to their end.
    Raises ``LoadFailed``."""
    deadline = time.perf_counter() + seconds
    origin = Origin(url)
    head = origin.head("POST", "/chat/completions", {"content-type": "application/json"})

    async with Client() as client:

        async def ask_again() -> int:
            tokens = 0
            while True:
                tokens += await _ask(client, origin, head, body)
                if time.perf_counter() > deadline:
                    return tokens

        started = time.perf_counter()
        counts = await asyncio.gather(*(ask_again() for _ in range(concurrent)))
        return sum(counts) / (time.perf_counter() - started)


async def _ask(client: Client, origin: Origin, head: bytes, body: bytes) -> int:
    response = await client.send(origin, head, body)
    if response.status != 200:
        raise LoadFailed(f"the model answered {response.status}: {(await response.read())[:500]!r}")
    decoder = Decoder()
    last: Mapping[str, object] = {}
    async for piece in response:
        for data in decoder.feed(piece):
            if data != b"[DONE]" and b'"usage"' in data:
                last = msgspec.json.decode(data).get("usage") or last
    tokens = last.get("completion_tokens")
    if not isinstance(tokens, int) or not tokens:
        raise LoadFailed("the model told no usage")
    return tokens
