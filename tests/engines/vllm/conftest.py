from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.vllm.engine import VllmEngine
from dev_opsgpt.engines.vllm.options import VllmOptions
from tests.support.stack import SECRET
from tests.support.vllm_standin import install, model

Make = Callable[..., VllmEngine]


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the small program in vLLM's place."""
    return install(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def make(standin: Path, cache: Path, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes engines, and ends them all."""
    made: list[VllmEngine] = []

    def one(**options: Any) -> VllmEngine:
        fields = {
            "path": model(tmp_path / "model"),
            "names": ("echo",),
            "pause": lambda _: 0.05,
            "python": str(standin),
            "secret": SECRET,
            "cache": cache,
            **options,
        }
        made.append(VllmEngine(VllmOptions(**fields)))
        return made[-1]

    yield one
    for engine in made:
        await engine.stop()
