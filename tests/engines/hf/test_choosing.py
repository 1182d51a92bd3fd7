"""Models that the fast way would be wrong for, and do not say so."""

from typing import Any

import pytest
import torch
import transformers as hf

from dev_opsgpt.engines.hf.apart import ApartRunner
from dev_opsgpt.engines.hf.choosing import choose_runner
from dev_opsgpt.engines.hf.flat import FlatRunner
from dev_opsgpt.engines.hf.runner import Runner

from . import attentions as tiny


def chosen(model: Any, context: int = tiny.CONTEXT) -> Runner:
    with torch.inference_mode():
        return choose_runner(tiny.loaded(model, context))


def test_a_model_that_mixes_tokens_elsewhere_is_found_out() -> None:
    model = tiny.llama()
    inner = model.model.layers[1].mlp.forward
    # What a token shift or a convolution does: each sees something of the one before.
    model.model.layers[1].mlp.forward = lambda x: inner(x + x.roll(1, dims=1))
    before = model.config._attn_implementation
    assert isinstance(chosen(model), ApartRunner)
    assert model.config._attn_implementation == before


def test_a_model_that_hides_the_state_of_a_sequence_runs_one_at_a_time() -> None:
    model = tiny.bloom()
    hidden = {"sum": torch.zeros(1)}
    inner = model.transformer.h[0].mlp.forward

    def drifting(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 1:
            hidden["sum"] = torch.zeros(1)
        seen = hidden["sum"] + x[..., :1].cumsum(1)
        hidden["sum"] = seen[:, -1:]
        return inner(x + seen, residual)

    model.transformer.h[0].mlp.forward = drifting
    runner = chosen(model)
    assert runner.one_at_a_time
    assert not chosen(tiny.bloom()).one_at_a_time


def test_a_window_that_layers_do_not_tell_of_is_missed() -> None:
    model = tiny.mistral()
    for layer in model.model.layers:
        layer.self_attn.config = _Without(model.config)
    assert isinstance(chosen(model), ApartRunner)


class _Without:
    """A configuration that has lost its window."""

    sliding_window = None

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


@pytest.mark.parametrize(("context", "kind"), [(256, ApartRunner), (64, FlatRunner)])
def test_a_rotation_that_changes_with_the_length(context: int, kind: type) -> None:
    model = tiny._made(
        hf.LlamaConfig(
            **{**tiny._COMMON, "max_position_embeddings": 64},
            rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        )
    )
    assert isinstance(chosen(model, context), kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["recurrent_gemma", "mamba", "qwen3_next", "mamba2"])
def test_what_is_lost_between_pieces_of_a_prompt_is_noticed(name: str, dtype: torch.dtype) -> None:
    runner = chosen(tiny.ALL[name]().to(dtype))
    assert runner.whole_prompts == (name in tiny.WHOLE)
    assert not runner.one_at_a_time


def test_a_rotation_that_changes_keeps_prompts_whole() -> None:
    model = tiny._made(
        hf.LlamaConfig(
            **{**tiny._COMMON, "max_position_embeddings": 64},
            rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        )
    )
    assert chosen(model).whole_prompts


@pytest.mark.parametrize("index_topk", [48, 256])
def test_prompts_stay_whole_where_few_keys_are_looked_at(index_topk: int) -> None:
    runner = chosen(tiny.deepseek_v32(index_topk))
    assert isinstance(runner, ApartRunner)
    assert runner.whole_prompts == (index_topk < tiny.CONTEXT)
    assert not runner.one_at_a_time


def test_layers_that_are_gone_through_twice_have_keys_of_their_own() -> None:
    model = tiny.llama().to(torch.bfloat16)
    inner = model.model.layers[1].forward
    # What the second turn changes is lost in the tolerance for 16 bits.
    model.model.layers[1].forward = lambda x, **more: (
        inner(x, **more) * 0.999 + inner(x, **more) * 0.001
    )
    assert isinstance(chosen(model), ApartRunner)


def test_a_token_takes_what_its_keys_and_values_take() -> None:
    runner = chosen(tiny.llama())
    assert runner.bytes_per_token == 2 * 2 * 2 * 8 * 4  # layers, both, heads, width, bytes
    runner.leave()
