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
# Not: embeddings, which a model that generates does not give; echo, whose usage counts a token that
# is not shown.
CAN = (
    *("completions", "token_ids", "n", "seed", "top_k", "logit_bias", "logprobs"),
    *("json", "tools", "token_check"),
)

# What vLLM 0.32 does in its own way. A request that it refuses is told so by name.
DIFFERS = {
    "test_completions.py::test_several_answers_to_several_prompts": "n 2, temperature 0: refused",
    "test_completions.py::test_an_empty_prompt": "refused",
    "test_sampling.py::test_a_narrow_choice_is_the_greedy_one[OPSGPT_CONFORMANCE-narrow1]": (
        "top_p 0: refused"
    ),
    "test_logprobs.py::test_the_tokens_are_the_text[OPSGPT_CONFORMANCE-\\u4f60": (
        "the token that ended the answer is listed too"
    ),
    "test_logprobs.py::test_those_of_completions": "the same",
    "test_stop.py::test_stop_and_logprobs": "tokens of the stop string are listed too",
    "test_tools.py::test_named[OPSGPT_CONFORMANCE-switch]": (
        "arguments are written anew in a plain answer, and are as generated in a stream"
    ),
    "test_tools.py::test_a_limit_cuts_a_call": "the same",
    "test_tools.py::test_one_of_the_allowed": "a choice of several tools by name: refused",
    "test_json.py::test_json_or_a_call[OPSGPT_CONFORMANCE-2]": "the same: it is a call",
    "test_load.py::test_requests_of_all_kinds_at_once": (
        "so small a model writes white space for ever in a call that it must make"
    ),
    "test_tools.py::test_named[OPSGPT_CONFORMANCE-ping]": (
        "a function without parameters is called with any"
    ),
}


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
        left_out = [f"--deselect=tests/conformance/{test}" for test in DIFFERS]
        argv = [*PYTEST, "-m", "not (soak or torch)", *left_out, "tests/conformance"]
        return subprocess.run(argv, cwd=ROOT, env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())
