"""``python -m tests.vllm``: the conformance suite on the real vLLM, then the tests beside this."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vllm.environment import ROOT, ensure_environment
from tests.vllm.service import MODEL, ready, vllm_service

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
# Of vLLM's own doing: no embeddings from a model that generates.
CAN = (
    *("completions", "token_ids", "n", "seed", "top_k", "logit_bias", "logprobs"),
    *("json", "tools", "token_check"),
)


def main() -> int:
    """Gives the worse of both exit codes."""
    ensure_environment()
    codes = [_conformance()]
    codes.append(subprocess.run([*PYTEST, "-m", "vllm", "tests/vllm"], cwd=ROOT).returncode)
    return max(codes)


def _conformance() -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        vllm_service(Path(folder)) as service,
    ):
        asyncio.run(ready(service))
        target = {
            "base_url": f"{service.gateway}/v1",
            "model": MODEL,
            "can": CAN,
            "context": 4096,
            "end_tokens": [0, 2],
            "health": f"{service.worker(0)}/health",
        }
        environ = os.environ | {"OPSGPT_CONFORMANCE": json.dumps(target)}
        argv = [*PYTEST, "-m", "not (soak or torch)", "tests/conformance"]
        return subprocess.run(argv, cwd=ROOT, env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())
