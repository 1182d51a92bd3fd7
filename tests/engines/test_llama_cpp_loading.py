"""What is said of a model that cannot be loaded, and how one is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_loading import threads_of
from dev_opsgpt.engines.llama_cpp_memory import check_memory
from dev_opsgpt.engines.llama_cpp_params import checked_defaults
from dev_opsgpt.engines.memory import available_memory
from dev_opsgpt.worker.engine import Abilities, EngineError

from .answers import ask
from .random_model import CONTEXT, VOCABULARY


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "truncated|not a GGUF"),
        (lambda data: b"hello" * 1000, "is not a GGUF file"),
        (lambda data: b"GGUF" + b"\x09" + data[5:], "version 9"),
        (lambda data: data[:10], "truncated"),
        (_cut(0.005), "truncated"),
        (_cut(0.5), "truncated"),
        (lambda data: data[:-40], "truncated"),
        (lambda data: data[:24] + b"\xff" * 200 + data[224:], "truncated or damaged"),
    ],
)
async def test_broken_files(
    model: Path, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(change(model.read_bytes()))
    await _refused(LlamaOptions(path=path), words)


async def _refused(options: LlamaOptions, words: str, **fields: object) -> None:
    engine = LlamaCppEngine(options, default_params=fields)
    with pytest.raises(EngineError, match=words) as error:
        await engine.start()
    assert "\n" not in str(error.value)
    await engine.stop()


async def test_paths_that_are_no_files(tmp_path: Path) -> None:
    await _refused(LlamaOptions(path=tmp_path / "no.gguf"), "does not exist")
    await _refused(LlamaOptions(path=tmp_path), "is a folder")


async def test_an_unknown_architecture(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    data = model.read_bytes()
    path.write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lemma", 1))
    await _refused(LlamaOptions(path=path), r"architecture \(lemma\)")


async def test_too_little_memory(model: Path) -> None:
    gguf = Gguf(model)
    assert gguf.cache_bytes(10) == 10 * 2 * (64 + 64) * 2
    assert available_memory() is not None
    with pytest.raises(EngineError, match="does not fit into memory"):
        check_memory(gguf, 10**12, gpu_layers=0)
    await _refused(LlamaOptions(path=model, parallel=10**9), "does not fit into memory")


def test_memory_of_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    assert available_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert available_memory(tmp_path) == 5000 * 1024
    (group / "memory.max").write_text("2000000\n")
    (group / "memory.current").write_text("1500000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 300000\n")
    assert available_memory(tmp_path) == 800000
    (group / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 5000 * 1024


async def test_settings_that_mean_nothing(model: Path) -> None:
    await _refused(LlamaOptions(path=model), "temprature", temprature=1)
    await _refused(LlamaOptions(path=model, chat_template="vicuna"), "neither a Jinja template")


def test_what_the_file_says(model: Path) -> None:
    gguf = Gguf(model)
    assert gguf.architecture == "llama"
    assert gguf.trained_context == CONTEXT
    assert gguf.vocabulary_size == VOCABULARY
    assert gguf.embedding_size == 64
    assert threads_of(gguf, None) == 1
    assert threads_of(gguf, 3) == 3


async def test_context_and_template(model: Path) -> None:
    options = LlamaOptions(path=model, context=10**6, parallel=1, chat_template="chatml")
    engine = LlamaCppEngine(options)
    assert engine.context_length == 0
    await engine.start()
    try:
        assert engine.context_length == CONTEXT  # what it was trained for
        assert (await ask(engine, max_tokens=3)).finish
        with pytest.raises(EngineError):
            await engine.start()
    finally:
        await engine.stop()
    await engine.stop()


TOLD = "{% if tools %}{{ tools | tojson }}{% endif %}"
CALLS = "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
TALK = "{% for m in messages %}{{ m.content }}" + CALLS + "{% endfor %}"


@pytest.mark.parametrize(
    ("template", "tools"), [(None, True), (TOLD + TALK, True), (TALK, False), ("chatml", False)]
)
async def test_abilities(model: Path, template: str | None, tools: bool) -> None:
    options = LlamaOptions(path=model, context=512, parallel=3, chat_template=template)
    engine = LlamaCppEngine(options)
    assert engine.abilities == Abilities()
    await engine.start()
    try:
        assert engine.abilities == Abilities(
            context_length=512, tools=tools, vision=False, json_output=True
        )
    finally:
        await engine.stop()


async def test_the_listener_wants_its_key(engine: LlamaCppEngine) -> None:
    server = engine._ready.server
    assert server._origin is not None
    assert server._origin.host == "127.0.0.1"
    server._headers = {**server._headers, "authorization": "Bearer wrong"}
    with pytest.raises(Exception, match="Invalid API Key"):
        await server.get("/slots")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 7}, "temperature"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"temprature": 1}, "does not know.*temprature"),
    ],
)
def test_default_params_that_no_request_may_have(fields: dict[str, object], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        checked_defaults(fields)


def test_default_params_of_llama_cpp_s_own() -> None:
    found = checked_defaults({"repeat_penalty": 1.1, "mirostat": 2, "max_completion_tokens": 5})
    assert (found["repeat_penalty"], found["mirostat"], found["max_tokens"]) == (1.1, 2, 5)
