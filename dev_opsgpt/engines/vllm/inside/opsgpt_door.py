"""The door of vLLM's server: ``--middleware opsgpt_door.Door`` names it to vLLM.

It is ``dev_opsgpt/engines/vllm/door.py``, brought into vLLM's interpreter, where this project is
not installed: its package is found by where this file lies, and nothing else of our environment is.
"""

import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
PACKAGE = "dev_opsgpt"


class Door:
    """The middleware, for a server whose key is in the environment."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        adopt(Path(__file__).resolve().parents[3])
        from dev_opsgpt.engines.vllm.door import Door as Real

        self._real = Real(app, os.environ["VLLM_API_KEY"])

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answers as the real one does."""
        await self._real(scope, receive, send)


def adopt(folder: Path) -> None:
    """Makes the package of that folder importable, by itself: what lies beside it may be a whole
    other environment."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no package in {folder}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
