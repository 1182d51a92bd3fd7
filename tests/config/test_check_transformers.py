from typing import Any

from dev_opsgpt.config import Problem, Settings
from dev_opsgpt.config.check_transformers import transformers_keys


def problems(path: str = "some/folder", **worker: Any) -> dict[str, Problem]:
    settings = Settings.model_validate(
        {
            "LLM_MODELs": ["m"],
            "llm_model_dict": {"m": {"local_model_path": path}},
            "FSCHAT_MODEL_WORKERS": {"m": worker},
        }
    )
    return {
        problem.key.rpartition("[")[2][1:-2]: problem for problem in transformers_keys(settings)
    }


def test_nothing_is_wrong() -> None:
    assert problems() == {}
    assert problems(gptq_wbits=4, gptq_groupsize=128, gptq_act_order=True) == {}
    assert problems("m.gguf", n_threads=2) == {}


def test_keys_that_llama_cpp_does_not_have() -> None:
    told = problems("m.gguf", load_8bit=True, gptq_wbits=4)
    assert set(told) == {"load_8bit", "gptq_wbits"}
    assert all(problem.severity == "warning" for problem in told.values())
    assert "run by llama.cpp" in told["load_8bit"].message


def test_packed_weights_that_nobody_declares() -> None:
    told = problems(gptq_groupsize=128, gptq_act_order=True, awq_groupsize=64)
    assert set(told) == {"gptq_groupsize", "gptq_act_order", "awq_groupsize"}
    assert "without gptq_wbits" in told["gptq_act_order"].message
    assert told["awq_groupsize"].mend == 'Write "awq_wbits": 4, or take it off'


def test_two_ways_of_packing() -> None:
    told = problems(gptq_wbits=4, awq_wbits=4)
    assert told["awq_wbits"].severity == "error"
