from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions

from .random_model import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "random.gguf")


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(LlamaOptions(path=model, context=2048, parallel=4))
    await engine.start()
    yield engine
    await engine.stop()
