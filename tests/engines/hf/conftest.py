import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .tiny import tiny_llama

sys.path.append(str(Path(__file__).parents[3] / "examples"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models lose more by sharing work than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers in float32; not to be changed."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")
