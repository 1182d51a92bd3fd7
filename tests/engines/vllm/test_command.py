from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.vllm.arguments import Argument, Schema
from dev_opsgpt.engines.vllm.command import GIB, Command, Machine, make_command, missing
from dev_opsgpt.engines.vllm.options import VllmOptions
from dev_opsgpt.worker.engine import EngineError

ARGUMENTS = [
    Argument("max_model_len", "--max-model-len", "size"),
    Argument("max_num_seqs", "--max-num-seqs", "int"),
    Argument("tensor_parallel_size", "--tensor-parallel-size", "int"),
    Argument("pipeline_parallel_size", "--pipeline-parallel-size", "int"),
    Argument("kv_cache_memory_bytes", "--kv-cache-memory-bytes", "size"),
    Argument("override_generation_config", "--override-generation-config", "json"),
    Argument("enable_auto_tool_choice", "--enable-auto-tool-choice", "bool", "--no-tools"),
    Argument("trust_remote_code", "--trust-remote-code", "bool", "--no-trust-remote-code"),
]
MACHINE = Machine([2, 3], 9 * GIB)


def command(built: str = "cuda", environ: dict[str, str] | None = None, **options: Any) -> Command:
    fields = {"path": Path("/m"), "names": ("a", "b"), "pause": lambda _: 1.0, **options}
    schema = Schema("1", built, ARGUMENTS)
    return make_command("python", VllmOptions(**fields), schema, environ or {}, MACHINE)


def test_what_is_always_there() -> None:
    made = command()
    words = " ".join(made.argv)
    assert words.startswith("python -m vllm.entrypoints.openai.api_server --model=/m ")
    assert "--host=127.0.0.1" in made.argv
    assert "--served-model-name a b --max-num-seqs=256" in words
    assert "trust-remote-code" not in words
    assert not made.tools
    assert made.environ["VLLM_HOST_IP"] == "127.0.0.1"
    assert "VLLM_HOST_IP" not in command(host="0.0.0.0").environ
    assert command(environ={"VLLM_HOST_IP": "10.0.0.1"}).environ["VLLM_HOST_IP"] == "10.0.0.1"
    # Only what this version knows.
    assert "--disable-uvicorn-access-log" not in words


def test_what_follows_from_other_keys() -> None:
    made = command(context=2048, limit=7, default_params={"temperature": 0.5})
    assert "--max-model-len=2048" in made.argv
    assert "--max-num-seqs=7" in made.argv
    assert '--override-generation-config={"temperature":0.5}' in made.argv
    own = command(limit=7, engine_args={"max-num-seqs": 9, "enable_auto_tool_choice": True})
    assert own.argv.count("--max-num-seqs=9") == 1
    assert "--max-num-seqs=7" not in own.argv
    assert own.tools


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"num_gpus": 4}, ["--tensor-parallel-size=4"]),
        ({"gpus": "0,1"}, ["--tensor-parallel-size=2"]),
        ({"gpus": "0,1,2", "num_gpus": 2}, ["--tensor-parallel-size=2"]),
        (
            {"num_gpus": 4, "engine_args": {"pipeline_parallel_size": 2}},
            ["--tensor-parallel-size=2", "--pipeline-parallel-size=2"],
        ),
        ({"num_gpus": 4, "engine_args": {"tensor_parallel_size": 2}}, ["--tensor-parallel-size=2"]),
    ],
    ids=str,
)
def test_one_part_for_each_gpu(options: dict[str, Any], words: list[str]) -> None:
    assert [word for word in command(**options).argv if "parallel" in word] == words


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_gpus": 2, "engine_args": {"tensor_parallel_size": 4}}, "more GPUs than the 2"),
        (
            {
                "gpus": "0,1,2",
                "engine_args": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2},
            },
            "more GPUs than the 3",
        ),
        ({"gpus": "0", "num_gpus": 2}, '"num_gpus" is 2, and "gpus" lists 1'),
        ({"num_gpus": 3, "engine_args": {"pipeline_parallel_size": 2}}, "does not divide 3"),
        ({"engine_args": {"tensor_parallel_size": 0}}, "a whole number from 1, not 0"),
        ({"context": 5, "engine_args": {"max_model_len": 6}}, 'contradicts "n_ctx"'),
        ({"default_params": {"max_tokens": 6}}, 'default_params["max_tokens"]: vLLM has a default'),
        ({"device": "cpu"}, "is built for cuda"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said(options: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError) as caught:
        command(**options)
    assert says in str(caught.value)


def test_on_a_cpu() -> None:
    made = command("cpu", device="cpu").environ
    assert made["VLLM_CPU_OMP_THREADS_BIND"] == "2,3"
    assert made["VLLM_CPU_KVCACHE_SPACE"] == "2", "a quarter of the free memory"
    threads = command("cpu", threads=1).environ
    assert (threads["VLLM_CPU_OMP_THREADS_BIND"], threads["OMP_NUM_THREADS"]) == ("nobind", "1")
    given = command("cpu", environ={"VLLM_CPU_KVCACHE_SPACE": "7"})
    assert given.environ["VLLM_CPU_KVCACHE_SPACE"] == "7"
    own = command("cpu", engine_args={"kv_cache_memory_bytes": "2G"})
    assert "VLLM_CPU_KVCACHE_SPACE" not in own.environ
    assert "VLLM_CPU_KVCACHE_SPACE" not in command("cuda").environ
    # One list of cores for each part would be needed.
    parts = command("cpu", engine_args={"tensor_parallel_size": 2})
    assert "VLLM_CPU_OMP_THREADS_BIND" not in parts.environ


def test_secrets_of_ours_stay_here() -> None:
    ours = {"OPSGPT_SECRET": "top", "MODEL_KEY": "top", "PYTHONHOME": "/x", "PATH": "/bin"}
    found = command(environ=ours)
    assert "top" not in found.environ.values()
    assert found.environ["PATH"] == "/bin"
    assert "PYTHONHOME" not in found.environ
    assert found.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert "/bin" not in repr(found)


def test_where_there_is_no_model(tmp_path: Path) -> None:
    assert "no model at" in (missing(tmp_path / "nowhere") or "")
    assert "no model at" in (missing("./nowhere") or "")
    assert "no config.json" in (missing(tmp_path) or "")
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in (missing(tmp_path) or "")
    (tmp_path / "config.json").write_text("[]")
    assert "no JSON object" in (missing(tmp_path) or "")
    (tmp_path / "config.json").write_text("{}")
    assert missing(tmp_path) is None
    assert missing("owner/model") is None
