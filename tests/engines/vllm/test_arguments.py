import pytest

from dev_opsgpt.engines.vllm.arguments import Argument, Schema, command_line, refused
from dev_opsgpt.worker.engine import EngineError

SCHEMA = Schema(
    "1.2",
    "cpu",
    [
        Argument("max_model_len", "--max-model-len", "size"),
        Argument("max_num_seqs", "--max-num-seqs", "int"),
        Argument("gpu_memory_utilization", "--gpu-memory-utilization", "float"),
        Argument("dtype", "--dtype", "str", choices=["auto", "float32"]),
        Argument("enforce_eager", "--enforce-eager", "bool", "--no-enforce-eager"),
        Argument("quiet", "--quiet", "bool"),
        Argument("hf_overrides", "--hf-overrides", "json"),
        Argument("traces", "--traces", "str", many=True),
        Argument("plugin", "--plugin", "str", repeated=True),
        Argument("port", "--port", "int"),
    ],
)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, []),
        ({"max_model_len": 512}, ["--max-model-len=512"]),
        ({"max_model_len": "8k"}, ["--max-model-len=8k"]),
        ({"--max-model-len": 512}, ["--max-model-len=512"]),
        ({"gpu_memory_utilization": 1}, ["--gpu-memory-utilization=1"]),
        ({"gpu_memory_utilization": 0.25}, ["--gpu-memory-utilization=0.25"]),
        ({"dtype": "float32"}, ["--dtype=float32"]),
        ({"dtype": None}, []),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False}, ["--no-enforce-eager"]),
        ({"quiet": True}, ["--quiet"]),
        ({"quiet": False}, []),
        ({"hf_overrides": {"a": [1, "é"]}}, ['--hf-overrides={"a":[1,"é"]}']),
        ({"traces": ["a", "b"]}, ["--traces", "a", "b"]),
        ({"plugin": ["a", "-b"]}, ["--plugin=a", "--plugin=-b"]),
    ],
    ids=str,
)
def test_words_of_the_command_line(given: dict[str, object], words: list[str]) -> None:
    assert command_line(given, SCHEMA) == words


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_modell_len": 1}, 'vLLM 1.2 has no such argument; did you mean "max_model_len"?'),
        ({"xyzzy": 1}, "vLLM 1.2 has no such argument."),
        # What is set by us is no hint either.
        ({"prt": 1}, "vLLM 1.2 has no such argument."),
        ({"port": 1}, "it is set by the worker"),
        ({"--served-model-name": "x"}, "it is set by the worker"),
        ({"hf_token": "hf_secret"}, "engine_env"),
        ({"ssl_keyfile": "x"}, "plain HTTP"),
        ({"max_num_seqs": "5"}, "must be a whole number, not '5'"),
        ({"max_num_seqs": True}, "must be a whole number, not True"),
        ({"max_model_len": 1.5}, 'one such as "8k", not 1.5'),
        ({"gpu_memory_utilization": "much"}, "must be a number"),
        ({"dtype": "int3"}, "must be one of auto, float32, not 'int3'"),
        ({"enforce_eager": "yes"}, "must be true or false"),
        ({"traces": "a"}, "must be a list of values"),
        ({"traces": []}, "must be a list of values"),
        ({"traces": [1]}, "must be a text, not 1"),
        ({"hf_overrides": {"a": object()}}, "must be plain data"),
    ],
    ids=str,
)
def test_what_is_refused_is_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(EngineError) as caught:
        command_line(given, SCHEMA)
    [name] = given
    assert f'engine_args["{name}"]' in str(caught.value)
    assert says in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_everything_of_ours_is_refused() -> None:
    for name in ("model", "host", "port", "served_model_name", "api_key", "middleware"):
        assert refused(name)
    assert refused("max_model_len") is None
