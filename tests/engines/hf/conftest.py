import sys
from pathlib import Path

import pytest

from .tiny import tiny_llama

sys.path.append(str(Path(__file__).parents[3] / "examples"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers in float32; not to be changed."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")
