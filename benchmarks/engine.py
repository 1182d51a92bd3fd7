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

from benchmarks import large_model
from benchmarks.cluster import ENTRY, Cluster
from benchmarks.load import LoadFailed
from benchmarks.processes import Process, free_port
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.transport.client import Client, Origin

MODEL = "tiny-chat"
LARGE = "134M, Q4_0"
FILE = Path(__file__).parents[1] / "llm_models" / "tiny-chat.gguf"
CONCURRENT = (1, 8)
MAX_TOKENS = 128


class TokenFigures(msgspec.Struct, frozen=True):
    """Generated tokens a second with so many requests at a time, the median of the rounds;
    ``ratio`` is that of the rounds' own ratios, for what else the machine does changes from round
    to round."""

    concurrent: int
    raw: float
    ours: float
    ratio: float = 0.0
    model: str = MODEL


def measure(
    folder: Path, *, rounds: int, seconds: int, say: Callable[[str], None]
) -> list[TokenFigures]:
    """Both paths, in turn, with the embedded model and with one of a real one's size. Raises
    ``StartFailed``, ``LoadFailed``."""
    folder.mkdir(parents=True)
    files = {MODEL: FILE, LARGE: large_model.write_model(folder / "large.gguf")}
    found = []
    for number, (name, file) in enumerate(files.items()):
        place = folder / str(number)
        place.mkdir()
        with ExitStack() as stack:
            urls = {"raw": _start_raw(file, place, stack), "ours": _start_ours(file, place, stack)}
            rates = _Rates(urls, request_body(file), seconds)
            for concurrent in CONCURRENT:
                for turn in range(rounds):
                    say(f"engine, {name}, {concurrent} at a time, round {turn + 1} of {rounds}")
                    rates.take(concurrent)
                found.append(rates.figures(concurrent, name))
    return found


class _Rates:
    """Measures the paths behind ``urls`` one after the other, round by round."""

    def __init__(self, urls: Mapping[str, str], body: bytes, seconds: float) -> None:
        self._urls = urls
        self._body = body
        self._seconds = seconds
        self._taken: dict[int, list[dict[str, float]]] = {}
        for url in urls.values():  # warm
            asyncio.run(tokens_per_second(url, body, 1, 0.5))

    def take(self, concurrent: int) -> None:
        """One round. Raises ``LoadFailed``."""
        self._taken.setdefault(concurrent, []).append(
            {
                name: asyncio.run(tokens_per_second(url, self._body, concurrent, self._seconds))
                for name, url in self._urls.items()
            }
        )

    def figures(self, concurrent: int, model: str) -> TokenFigures:
        """The medians of the rounds."""
        rounds = self._taken[concurrent]
        raw = statistics.median(one["raw"] for one in rounds)
        ours = statistics.median(one["ours"] for one in rounds)
        ratio = statistics.median(one["ours"] / one["raw"] for one in rounds)
        return TokenFigures(concurrent, raw, ours, ratio, model)


def _start_raw(file: Path, folder: Path, stack: ExitStack) -> str:
    port = free_port()
    parallel = str(max(CONCURRENT))
    argv = [sys.executable, "-m", "benchmarks.raw_llama", str(file), str(port), parallel]
    process = Process(argv, folder / "raw.log")
    stack.callback(process.stop)
    process.wait_for(f"http://127.0.0.1:{port}/health")
    return f"http://127.0.0.1:{port}/v1"


def _start_ours(file: Path, folder: Path, stack: ExitStack) -> str:
    settings = {
        "llm_model_dict": {MODEL: {"local_model_path": str(file)}},
        "FSCHAT_MODEL_WORKERS": {"default": {"limit_worker_concurrency": max(CONCURRENT)}},
    }
    cluster = Cluster(folder, settings)
    stack.callback(cluster.stop)
    cluster.start()
    argv = [*ENTRY, "engine", "--controller", cluster.controller, "--model", MODEL]
    cluster.run([*argv, str(free_port())], "engine")
    cluster.wait_for(MODEL)
    return f"{cluster.gateway}/v1"


def request_body(file: Path) -> bytes:
    """A streamed request whose answer does not end before ``MAX_TOKENS``, so that both sides
    generate the same number of tokens."""
    end = Gguf(file).metadata["tokenizer.ggml.eos_token_id"]
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
