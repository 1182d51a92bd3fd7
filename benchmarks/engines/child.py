"""``python -m benchmarks.engines.child``: one contender in a process of its own, so that its memory
is its own. It reads a job a line from its input and writes an answer a line; between jobs it waits
and uses nothing."""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines.contenders import CONTENDERS, Contender, tokenized


def main(name: str, folder: str, device: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    # What libraries print goes elsewhere: the output is for answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender = CONTENDERS[name](Path(folder), device)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        job["prompts"] = tokenized(Path(folder), job["texts"])
        print(json.dumps(_answer(contender, job, device)), file=answers, flush=True)
    contender.close()


def _answer(contender: Contender, job: dict[str, Any], device: str) -> dict[str, Any]:
    if job["kind"] == "newcomer":
        return {"newcomer": contender.newcomer(job["prompts"], job["tokens"])}
    cpu, start = time.process_time(), time.perf_counter()
    firsts = contender.wave(job["prompts"], job["tokens"])
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "firsts": firsts,
        "memory": _memory(device),
    }


def _memory(device: str) -> int:
    """The most bytes it has held: of the card where it runs on one, else resident."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
