"""Environments with the real packages, made once and kept below .cache/ in the repository."""

from pathlib import Path

import pytest

from tests.compat.fschat_env import Environment, Tier, ensure_environment

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


@pytest.fixture(scope="session")
def light() -> Environment:
    """fschat without torch."""
    return ensure_environment(CACHE, Tier.LIGHT)


@pytest.fixture(scope="session")
def full() -> Environment:
    """fschat with torch, for its model_worker."""
    return ensure_environment(CACHE, Tier.WORKER)


@pytest.fixture(scope="session")
def openai_0_28() -> Environment:
    """The client library of the seeds' time."""
    return ensure_environment(CACHE, Tier.OPENAI_0_28)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of a test module log."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def tiny_chat() -> Path:
    """The embedded model in the form that fschat's model_worker loads."""
    return ROOT / "llm_models" / "tiny-chat"
