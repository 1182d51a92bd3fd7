from types import SimpleNamespace
from typing import Any

import pytest

from dev_opsgpt.engines.hf.context import context_length, end_tokens

UNLIMITED = SimpleNamespace(model_max_length=10**30)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4}}, 16384),
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 32768,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 8192,
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8}},
            },
            8192,
        ),
        ({}, 2048),
    ],
)
def test_what_a_model_was_made_for(config: dict[str, Any], length: int) -> None:
    assert context_length(config, UNLIMITED, None) == length


def test_the_tokenizer_bounds_it_unless_somebody_asks() -> None:
    config = {"max_position_embeddings": 4096}
    tokenizer = SimpleNamespace(model_max_length=1000)
    assert context_length(config, tokenizer, None) == 1000
    assert context_length(config, tokenizer, 3000) == 3000
    assert context_length(config, tokenizer, 9000) == 4096
    assert context_length({}, tokenizer, 9000) == 9000


def test_end_tokens() -> None:
    tokenizer = SimpleNamespace(eos_token_id=2)
    assert end_tokens(SimpleNamespace(eos_token_id=[1, 3]), tokenizer) == {1, 2, 3}
    assert end_tokens(SimpleNamespace(eos_token_id=7), tokenizer) == {2, 7}
    assert end_tokens(None, SimpleNamespace(eos_token_id=None)) == frozenset()
