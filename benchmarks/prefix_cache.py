"""``python -m benchmarks.prefix_cache``: dispatch policies on four real llama.cpp replicas.

The same chats, of several turns under long system prompts that they share, are held with a fresh
cluster for each policy: how many prompt tokens were in a replica's cache, how long the first token
took, how many prompt tokens went through a second. With several seeds, other chats for each: what
holds for one set of them need not for another.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import median

import msgspec

from benchmarks.cluster import ENTRY, Cluster
from benchmarks.engine import FILE, MODEL
from benchmarks.load import LoadFailed
from benchmarks.processes import StartFailed, free_port
from benchmarks.report import markdown
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.routing.policies import POLICIES
from dev_opsgpt.transport.client import Client, Origin

COMPARED = ("shortest_queue", "least_load", "session_affinity", "prefix_cache")
RESULT = Path(__file__).parents[1] / ".cache" / "benchmarks" / "prefix_cache.json"
REPLICAS = 4
# Requests that a replica runs at once, each with a cache of its own in llama.cpp.
SLOTS = 4
TURNS = 4
ANSWER = 24
# Words make about three and a half tokens each with tiny-chat's small vocabulary.
SYSTEM_WORDS, QUESTION_WORDS = 400, 20
WORDS = tuple(
    word + end
    for word in ("deploy", "server", "metric", "alert", "cluster", "latency", "restart", "backup")
    for end in ("", "s", "ed", " of", " and", " to")
)


class Chat(msgspec.Struct, frozen=True):
    """What one client says: the number of its system prompt, and its questions."""

    name: str
    system: int
    questions: tuple[str, ...]


class Load(msgspec.Struct, frozen=True):
    """The chats of a run. ``concurrent`` are held at a time; ``think`` seconds pass on the mean
    between an answer and the next question."""

    systems: tuple[str, ...]
    chats: tuple[Chat, ...]
    concurrent: int
    think: float


class Measured(msgspec.Struct):
    """One request: seconds to the first token, and tokens."""

    first_token: float
    prompt: int
    cached: int


class Figures(msgspec.Struct, frozen=True):
    """How one policy did. ``p50`` and ``p99`` are milliseconds to the first token, ``prompt_rate``
    is prompt tokens a second, cached ones too."""

    requests: int
    hit_rate: float
    p50: float
    p99: float
    prompt_rate: float
    seconds: float


def make_load(chats: int, systems: int, concurrent: int, think: float, seed: int) -> Load:
    """The same chats for the same ``seed``; the n-th system prompt has a share of 1/n."""
    rng = Random(seed)
    prompts = tuple(" ".join(rng.choices(WORDS, k=SYSTEM_WORDS)) for _ in range(systems))
    marks = list(accumulate(1 / n for n in range(1, systems + 1)))
    made = []
    for number in range(chats):
        system = rng.choices(range(systems), cum_weights=marks)[0]
        questions = (" ".join(rng.choices(WORDS, k=QUESTION_WORDS)) for _ in range(TURNS))
        made.append(Chat(f"chat-{seed}-{number}", system, tuple(questions)))
    return Load(prompts, tuple(made), concurrent, think)


def measure(policy: str, load: Load, folder: Path) -> Figures:
    """Holds the chats with a cluster of its own. Raises ``StartFailed``, ``LoadFailed``."""
    folder.mkdir(parents=True)
    settings = {
        "llm_model_dict": {MODEL: {"local_model_path": str(FILE)}},
        "FSCHAT_MODEL_WORKERS": {"default": {"limit_worker_concurrency": SLOTS}},
        "FSCHAT_CONTROLLER": {"dispatch_method": policy},
    }
    cluster = Cluster(folder, settings)
    try:
        cluster.start()
        for number in range(REPLICAS):
            argv = [*ENTRY, "engine", "--controller", cluster.controller, "--model", MODEL]
            cluster.run([*argv, str(free_port())], f"engine-{number}")
        cluster.wait_for(MODEL, REPLICAS)
        started = time.perf_counter()
        found = asyncio.run(_hold(f"{cluster.gateway}/v1", load))
        return _figures(found, time.perf_counter() - started)
    finally:
        cluster.stop()


def _figures(found: Sequence[Measured], seconds: float) -> Figures:
    waits = sorted(one.first_token for one in found)
    prompt = sum(one.prompt for one in found)
    return Figures(
        requests=len(found),
        hit_rate=sum(one.cached for one in found) / prompt,
        p50=waits[len(waits) // 2] * 1000,
        p99=waits[min(len(waits) - 1, int(0.99 * len(waits)))] * 1000,
        prompt_rate=prompt / seconds,
        seconds=seconds,
    )


async def _hold(url: str, load: Load) -> list[Measured]:
    """All chats, so many at a time, each as soon as one before it is over."""
    found: list[Measured] = []
    left = list(reversed(load.chats))

    async with Client() as client:

        async def hold_chats() -> None:
            while left:
                await _chat(client, Origin(url), load, left.pop(), found)

        await asyncio.gather(*(hold_chats() for _ in range(load.concurrent)))
    return found


async def _chat(
    client: Client, origin: Origin, load: Load, chat: Chat, found: list[Measured]
) -> None:
    rng = Random(chat.name)
    headers = {"content-type": "application/json", "x-session-id": chat.name}
    head = origin.head("POST", "/chat/completions", headers)
    messages = [{"role": "system", "content": load.systems[chat.system]}]
    for question in chat.questions:
        await asyncio.sleep(rng.expovariate(1 / load.think))
        messages.append({"role": "user", "content": question})
        body = {
            "model": MODEL,
            "messages": messages,
            "max_tokens": ANSWER,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        measured, answer = await _ask(client, origin, head, msgspec.json.encode(body))
        found.append(measured)
        messages.append({"role": "assistant", "content": answer})


async def _ask(client: Client, origin: Origin, head: bytes, body: bytes) -> tuple[Measured, str]:
    started = time.perf_counter()
    response = await client.send(origin, head, body)
    if response.status != 200:
        raise LoadFailed(f"the model answered {response.status}: {(await response.read())[:500]!r}")
    decoder = Decoder()
    text, first, usage = "", 0.0, None
    async for piece in response:
        for data in decoder.feed(piece):
            if data == b"[DONE]":
                continue
            chunk = msgspec.json.decode(data)
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
            if text and not first:
                first = time.perf_counter() - started
    if usage is None:
        raise LoadFailed("the model told no usage")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    # An answer without any text has no first token; its end is what the client waited for.
    first = first or time.perf_counter() - started
    return Measured(first, usage["prompt_tokens"], cached), text


def table(figures: Mapping[str, Sequence[Figures]]) -> str:
    """Each policy's figures for people: of several seeds the median, and between which they lie."""
    columns: dict[str, tuple[Callable[[Figures], float], str]] = {
        "requests": (lambda one: one.requests, ",.0f"),
        "cached": (lambda one: one.hit_rate, ".1%"),
        "p50 ms": (lambda one: one.p50, ",.0f"),
        "p99 ms": (lambda one: one.p99, ",.0f"),
        "prompt tokens/s": (lambda one: one.prompt_rate, ",.0f"),
        "seconds": (lambda one: one.seconds, ".0f"),
    }
    rows = [
        [name, *(_spread([read(one) for one in found], form) for read, form in columns.values())]
        for name, found in figures.items()
    ]
    return markdown(["", *columns], rows)


def compared(figures: Mapping[str, Sequence[Figures]]) -> str:
    """Each policy against the first, seed by seed: the same chats on the same machine, minutes
    apart. Below 1 is less than the first: prompt tokens computed, waits, the time for all."""
    first, *others = figures
    columns: dict[str, Callable[[Figures], float]] = {
        "computed": lambda one: 1 - one.hit_rate,
        "p50": lambda one: one.p50,
        "p99": lambda one: one.p99,
        "seconds": lambda one: one.seconds,
    }
    rows = []
    for name in others:
        pairs = list(zip(figures[name], figures[first], strict=True))
        ratios = (
            [read(one) / (read(base) or 1) for one, base in pairs] for read in columns.values()
        )
        rows.append([name, *(_spread(found, ".2f") for found in ratios)])
    return markdown([f"against {first}", *columns], rows)


def _spread(values: Sequence[float], form: str) -> str:
    middle, least, most = (format(f(values), form) for f in (median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code: 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix_cache", description=__doc__)
    parser.add_argument(
        "--policies", nargs="+", choices=POLICIES, default=COMPARED, help="to compare"
    )
    parser.add_argument("--chats", type=int, default=48, help=f"of {TURNS} turns (48)")
    parser.add_argument("--systems", type=int, default=16, help="system prompts (16)")
    parser.add_argument("--concurrent", type=int, default=6, help="chats at a time (6)")
    parser.add_argument("--think", type=float, default=0.5, help="seconds between turns (0.5)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1], help="of all chance, one set of chats each (1)"
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="file for the JSON")
    arguments = parser.parse_args(argv)
    figures: dict[str, list[Figures]] = {policy: [] for policy in arguments.policies}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for turn, seed in enumerate(arguments.seeds):
            for policy, found in _one_seed(arguments, seed, turn).items():
                figures[policy].append(found)
            # After each: who stops a long run has what was measured.
            told = msgspec.json.encode({"seeds": arguments.seeds[: turn + 1], "policies": figures})
            arguments.out.write_bytes(msgspec.json.format(told, indent=2) + b"\n")
    except (StartFailed, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(figures))
    if len(figures) > 1:
        print(f"\n{compared(figures)}")
    return 0


def _one_seed(arguments: argparse.Namespace, seed: int, turn: int) -> dict[str, Figures]:
    """All policies with the same chats. Each turn begins with another one, so that what the machine
    does meanwhile strikes none of them always."""
    load = make_load(
        arguments.chats, arguments.systems, arguments.concurrent, arguments.think, seed
    )
    begin = turn % len(arguments.policies)
    figures = {}
    with tempfile.TemporaryDirectory(prefix="opsgpt-bench-") as folder:
        for policy in [*arguments.policies[begin:], *arguments.policies[:begin]]:
            print(f"  seed {seed}: {policy}", file=sys.stderr, flush=True)
            figures[policy] = measure(policy, load, Path(folder) / policy)
    return figures


if __name__ == "__main__":
    sys.exit(main())
