"""Sizes as people write them."""

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.config.sizes import bytes_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GiB", 12 * 2**30),
        ("1.5 GB", 1_500_000_000),
        ("500M", 500 * 2**20),
        ("7kb", 7000),
        (" 100 ", 100),
        ("100B", 100),
        ("2TiB", 2 * 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size
    assert Settings.model_validate({"MAX_LOADED_MEMORY": text}).max_loaded_memory == text


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "12 apples", "1e3", "1,5GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        bytes_of(text)
    for key in ("MAX_LOADED_MEMORY", "MAX_LOADED_GPU_MEMORY"):
        with pytest.raises(ValueError, match=key):
            Settings.model_validate({key: text})
    with pytest.raises(ValueError, match="gpu_memory"):
        Settings.model_validate({"FSCHAT_MODEL_WORKERS": {"a": {"gpu_memory": text}}})
