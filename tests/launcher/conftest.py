from collections.abc import Iterator

import pytest

from tests.launcher.slow_model import serve_slow_model


@pytest.fixture(scope="session")
def slow_model() -> Iterator[dict[str, str]]:
    """An ``ONLINE_LLM_MODEL`` entry whose provider streams ten words in two seconds."""
    with serve_slow_model() as entry:
        yield entry
