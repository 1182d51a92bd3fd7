"""``python -m benchmarks.engines``: the step batcher beside a static batch, a thread a request and
``transformers serve``, on a model of random weights that it makes. Prints a table and writes the
figures as JSON."""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.engines.model import FOLDER, Size, ensure_model
from benchmarks.engines.served import Served
from benchmarks.engines.turns import Child, Figures, Results, Taker, measure
from benchmarks.machine import facts
from benchmarks.processes import StartFailed

NAMES = {
    "batcher": "our step batcher",
    "static": "one static batch, `generate`",
    "threads": "a `generate` thread each",
    "serve": "`transformers serve`, continuous batching",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code: 1 where a contender could not be measured."""
    arguments = _arguments(argv)
    size = Size(
        arguments.layers, arguments.hidden, arguments.heads, arguments.key_heads, arguments.dtype
    )
    folder = ensure_model(size)
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="opsgpt-engines-") as logs:
        takers = _start(arguments, folder, Path(logs), left_out)
        try:
            results = measure(
                takers,
                concurrent=arguments.concurrent,
                tokens=arguments.tokens,
                rounds=arguments.rounds,
                say=_say,
            )
        finally:
            for taker in takers.values():
                taker.close()
    print(_machine(arguments, size), table(results), sep="\n\n")
    _write(results, arguments, size)
    for name, why in left_out.items():
        print(f"Not measured: {name}: {why}", file=sys.stderr)
    return 1 if left_out else 0


def table(results: Results) -> str:
    """The medians as a table in Markdown."""
    lines = [
        "| at once | | tokens/s | tokens/CPU s | × ours | first s | newcomer's s (steps) | MiB |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for many, found in results.items():
        ours = median(found["batcher"].rates) if "batcher" in found else None
        lines += [_row(many, name, figures, ours) for name, figures in found.items()]
    return "\n".join(lines)


def _row(many: int, name: str, figures: Figures, ours: float | None) -> str:
    rate = median(figures.rates)
    late = f"{median(figures.newcomers):.2f}" if figures.newcomers else "–"
    if figures.steps:
        late += f" ({median(figures.steps):.0f})"
    cells = [
        str(many),
        NAMES[name],
        f"{rate:.1f}",
        f"{median(figures.cpu_rates):.1f}",
        f"{rate / ours:.2f}" if ours else "–",
        f"{median(figures.firsts):.2f}",
        late,
        f"{figures.memory / 2**20:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _start(
    arguments: argparse.Namespace, folder: Path, logs: Path, left_out: dict[str, str]
) -> dict[str, Taker]:
    takers: dict[str, Taker] = {}
    for name in arguments.contenders:
        log = logs / f"{name}.log"
        try:
            if name != "serve":
                takers[name] = Child(name, folder, arguments.device, log, arguments.threads)
            elif importlib.util.find_spec("uvicorn") is None:
                left_out[name] = "transformers[serving] is not installed"
            else:
                takers[name] = Served(folder, arguments.device, log, arguments.threads)
        except StartFailed as error:
            left_out[name] = str(error)
        _say(f"{name} is up")
    return takers


def _machine(arguments: argparse.Namespace, size: Size) -> str:
    import torch
    import transformers

    described = facts()
    if arguments.device.startswith("cuda"):
        described["GPU"] = torch.cuda.get_device_name()
    described |= {"torch": torch.__version__, "transformers": transformers.__version__}
    described |= {"threads": str(arguments.threads), "tokens an answer": str(arguments.tokens)}
    described |= {name: str(value) for name, value in asdict(size).items()}
    return ", ".join(f"{name} {value}" for name, value in described.items()) + "."


def _write(results: Results, arguments: argparse.Namespace, size: Size) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = arguments.out or FOLDER / f"engines-{time.strftime('%Y%m%dT%H%M%S')}.json"
    whole = {
        "machine": _machine(arguments, size),
        "results": {
            str(many): {name: asdict(figures) for name, figures in found.items()}
            for many, found in results.items()
        },
    }
    path.write_text(json.dumps(whole, indent=1))
    print(f"\nThe figures as JSON: {path}")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    add = parser.add_argument
    add("--contenders", nargs="+", choices=NAMES, default=list(NAMES), help="to compare (all)")
    add("--concurrent", type=int, nargs="+", default=[1, 8, 32], help="requests at once (1 8 32)")
    add("--tokens", type=int, default=64, help="tokens of an answer (64)")
    add("--rounds", type=int, default=3, help="turns of each (3)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 … (cpu)")
    add("--threads", type=int, default=2, help="of torch, for work on the CPU (2)")
    add("--layers", type=int, default=Size.layers, help="of the model (18)")
    add("--hidden", type=int, default=Size.hidden, help="its width (768)")
    add("--heads", type=int, default=Size.heads, help="its attention heads (12)")
    add("--key-heads", type=int, default=Size.key_heads, help="its key and value heads (4)")
    add("--dtype", default=Size.dtype, help="its numbers (bfloat16)")
    add("--out", type=Path, help="file for the JSON (in the ignored folder for caches)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
