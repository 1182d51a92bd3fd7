from typing import Any

import pytest

from dev_opsgpt.config import Problem, Settings, check_settings


def check(**worker: Any) -> dict[str, Problem]:
    keys = {
        "LLM_MODELs": ["fast"],
        "VLLM_MODEL_DICT": {"fast": "owner/model"},
        "FSCHAT_MODEL_WORKERS": {"fast": worker},
    }
    found = check_settings(Settings.model_validate(keys))
    return {p.key: p for p in found if "FSCHAT_MODEL_WORKERS" in p.key}


def test_keys_that_say_nothing_to_vllm() -> None:
    found = check(max_gpu_memory="20GiB", load_8bit=True, gptq_wbits=16, n_ctx=512)
    start = 'FSCHAT_MODEL_WORKERS["fast"]'
    assert set(found) == {f'{start}["max_gpu_memory"]', f'{start}["load_8bit"]'}
    memory = found[f'{start}["max_gpu_memory"]']
    assert memory.severity == "warning"
    assert "gpu_memory_utilization" in memory.mend


@pytest.mark.parametrize(
    ("worker", "gpus"),
    [
        (
            {"num_gpus": 2, "engine_args": {"tensor_parallel_size": 4}},
            "need 4 GPUs, and there are 2",
        ),
        (
            {
                "gpus": "0,1,2",
                "engine_args": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2},
            },
            "need 4 GPUs, and there are 3",
        ),
        ({"num_gpus": 4, "engine_args": {"tensor_parallel_size": 4}}, None),
        ({"engine_args": {"tensor_parallel_size": 4}}, None),
        ({"device": "cpu", "num_gpus": 1, "engine_args": {"tensor_parallel_size": 2}}, None),
        ({"num_gpus": 1, "engine_args": {"tensor_parallel_size": "x"}}, None),
    ],
    ids=str,
)
def test_parallel_sizes_and_gpus(worker: dict[str, Any], gpus: str | None) -> None:
    found = check(**worker).get('FSCHAT_MODEL_WORKERS["fast"]["engine_args"]')
    assert (found is None) is (gpus is None)
    assert found is None or (found.severity == "error" and gpus in found.message)


def test_environment_values_are_not_shown() -> None:
    worker = {"engine_env": {"HF_TOKEN": "hf_verysecret"}}
    settings = Settings.model_validate({"FSCHAT_MODEL_WORKERS": {"fast": worker}})
    assert "verysecret" not in repr(settings)
    found = settings.worker("fast").engine_env["HF_TOKEN"]
    assert found.get_secret_value() == "hf_verysecret"
