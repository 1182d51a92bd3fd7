"""LiteLLM's proxy at its lightest: a master key, no database, so neither virtual keys, limits nor
usage records; its own list of prices instead of a download; one process a core, as its
documentation advises."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from benchmarks.contender import MODEL, Target
from benchmarks.contenders.program import Program

KEY = "sk-benchmark"


class LiteLLM(Program):
    """It takes answers apart and writes them anew."""

    name = "LiteLLM proxy"
    package = "litellm"
    rewrites = True
    heavy = True
    environ = MappingProxyType(
        {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.headers = {"authorization": f"Bearer {KEY}"}

    def command(self, upstream: Target, folder: Path, port: int) -> Sequence[str]:
        """Writes its configuration (YAML, of which JSON is a part)."""
        server = {"model": f"openai/{MODEL}", "api_base": upstream.url, "api_key": "none"}
        settings = {
            "model_list": [{"model_name": MODEL, "litellm_params": server}],
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"request_timeout": 600, "set_verbose": False, "telemetry": False},
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(settings))
        return [
            *(self.environment.program("litellm"), "--config", str(path)),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", str(len(os.sched_getaffinity(0)))),
        ]
