from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions
from dev_opsgpt.launcher import transformers_engine
from dev_opsgpt.launcher.transformers_engine import hf_options, make_engine
from dev_opsgpt.worker.engine import EngineError

TINY_CHAT = Path(__file__).parents[2] / "llm_models" / "tiny-chat"


def plan(path: str = "tiny-chat", **worker: Any) -> Any:
    settings = Settings.model_validate(
        {
            "LLM_MODELs": ["small"],
            "llm_model_dict": {"small": {"local_model_path": path, "engine": "transformers"}},
            "FSCHAT_MODEL_WORKERS": {"default": {"port": 20002}, "small": worker},
        }
    )
    return settings.models_to_start(["small"])[0]


def test_options_are_what_the_configuration_says() -> None:
    assert hf_options(plan(), None) == HfOptions(TINY_CHAT)
    made = hf_options(
        plan(
            n_ctx=512,
            limit_worker_concurrency=7,
            device="cpu",
            dtype="bfloat16",
            num_gpus=2,
            gpus="0,1",
            max_gpu_memory="20GiB",
            load_8bit=True,
            trust_remote_code=True,
            n_threads=3,
            engine_args={"prefill_tokens": 256, "cache_tokens": 4096},
        ),
        share=1,
    )
    assert made == HfOptions(
        TINY_CHAT,
        context=512,
        parallel=7,
        device="cpu",
        dtype="bfloat16",
        num_gpus=2,
        gpus="0,1",
        max_gpu_memory="20GiB",
        load_8bit=True,
        trust_remote_code=True,
        threads=3,
        prefill_tokens=256,
        cache_tokens=4096,
    )


def test_the_share_of_the_cores_counts_where_nobody_says_how_many() -> None:
    assert hf_options(plan(), share=2).threads == 2


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ({}, None),
        ({"gptq_wbits": 4}, GptqOptions(4)),
        ({"gptq_ckpt": "x.pt"}, GptqOptions(None, "x.pt")),
        (
            {"gptq_wbits": 4, "gptq_groupsize": 128, "gptq_act_order": True},
            GptqOptions(4, None, 128, act_order=True),
        ),
        ({"awq_wbits": 4, "awq_groupsize": 64}, GptqOptions(4, None, 64, awq=True)),
        ({"awq_ckpt": "x.safetensors"}, GptqOptions(None, "x.safetensors", awq=True)),
    ],
)
def test_packed_weights(keys: dict[str, Any], options: GptqOptions | None) -> None:
    assert hf_options(plan(**keys), None).gptq == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor_parallel_size": 2}, "engine_args has 'tensor_parallel_size'; the transformers"),
        ({"prefill_tokens": "many"}, "engine_args\\['prefill_tokens'\\] is 'many', not a number"),
        ({"cache_tokens": 0}, "is 0, not a number"),
    ],
)
def test_arguments_that_the_engine_does_not_have(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        hf_options(plan(engine_args=arguments), None)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name in ("torch", "llguidance") else find_spec(name)

    monkeypatch.setattr(transformers_engine, "find_spec", find)
    with pytest.raises(EngineError) as caught:
        make_engine(plan(), None)
    assert str(caught.value) == (
        "'small' needs torch, llguidance: pip install -r requirements-transformers.txt, "
        "or pip install 'dev-opsgpt[transformers]'."
    )


def test_a_path_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="There is no folder"):
        make_engine(plan(str(tmp_path / "gone")), None)
    with pytest.raises(EngineError, match=r"has no config\.json"):
        make_engine(plan(str(tmp_path)), None)
