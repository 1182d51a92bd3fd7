from hashlib import sha256
from pathlib import Path
from typing import Any

from dev_opsgpt.config import Problem, Settings, check_settings, load_settings


def _check(**keys: Any) -> dict[str, Problem]:
    return {p.key: p for p in check_settings(Settings.model_validate(keys))}


def _local(path: str = "owner/model", **keys: Any) -> dict[str, Any]:
    return {"local_model_path": path, **keys}


def test_names_that_are_declared_nowhere() -> None:
    problems = _check(
        LLM_MODEL="tiny-chta",
        LLM_MODELs=["tiny-chat", "zzz"],
        ONLINE_LLM_MODEL={"tiny-chat": {}},
    )
    assert set(problems) == {"LLM_MODEL", "LLM_MODELs[1]"}
    assert problems["LLM_MODEL"].severity == "error"
    assert '"tiny-chta" names a model that is declared nowhere' in problems["LLM_MODEL"].message
    assert problems["LLM_MODEL"].mend.startswith('Did you mean "tiny-chat"?')
    assert "llm_model_dict, VLLM_MODEL_DICT or ONLINE_LLM_MODEL" in problems["LLM_MODELs[1]"].mend


def test_an_attached_server_is_declared() -> None:
    assert not _check(LLM_MODEL="s", FSCHAT_MODEL_WORKERS={"s": {"openai_server": "http://h:1"}})


def test_a_local_model_whose_name_says_gpt() -> None:
    problem = _check(LLM_MODEL="my-gpt", llm_model_dict={"my-gpt": _local()})["LLM_MODEL"]
    assert problem.severity == "error"
    assert 'a model with "gpt" in its name is taken for an online one' in problem.message
    assert problem.mend == 'Rename it without "gpt", or set USE_FASTCHAT = True'


def test_a_local_model_kept_from_starting() -> None:
    problems = _check(USE_FASTCHAT=False, LLM_MODELs=["a", "a"], llm_model_dict={"a": _local()})
    assert problems["LLM_MODELs[0]"].severity == "warning"
    assert "USE_FASTCHAT is false" in problems["LLM_MODELs[0]"].message
    assert "LLM_MODELs[1]" not in problems


def test_model_files(tmp_path: Path) -> None:
    (tmp_path / "there.gguf").touch()
    problems = _check(
        LLM_MODELs=["there", "gone", "hub", "vllm-gone"],
        llm_model_dict={
            "there": _local(str(tmp_path / "there.gguf")),
            "gone": _local(str(tmp_path / "gone.gguf")),
            "hub": _local("owner/model"),
            "not-started": _local("gone.gguf"),
        },
        VLLM_MODEL_DICT={"vllm-gone": "gone"},
    )
    gone = problems['llm_model_dict["gone"]["local_model_path"]']
    # Others start, and this one fails by itself.
    assert gone.severity == "warning"
    assert "is neither under llm_models/ nor a path" in gone.message
    assert "hub name (owner/model)" in gone.mend
    hub = problems['llm_model_dict["hub"]["local_model_path"]']
    assert hub.severity == "warning"
    assert "Hugging Face hub name" in hub.message
    assert problems['VLLM_MODEL_DICT["vllm-gone"]'].severity == "warning"
    later = problems['llm_model_dict["not-started"]["local_model_path"]']
    assert later.severity == "warning"
    assert "no request can load it" in later.message
    assert len(problems) == 4


def test_nothing_starts_where_no_model_has_its_files() -> None:
    models = {"a": _local("gone.gguf"), "b": _local("gone/too/far")}
    problems = _check(LLM_MODELs=["a", "b"], llm_model_dict=models)
    assert [problem.severity for problem in problems.values()] == ["error", "error"]


def test_more_models_than_may_be_loaded() -> None:
    models = {name: _local("owner/model") for name in "ab"}
    keys: dict[str, Any] = {"LLM_MODELs": ["a", "b"], "llm_model_dict": models}
    workers = {"a": {"replicas": 2}}
    found = _check(**keys, FSCHAT_MODEL_WORKERS=workers, MAX_LOADED_MODELS=2)["MAX_LOADED_MODELS"]
    assert found.severity == "warning"
    assert "3 local models" in found.message
    assert "MAX_LOADED_MODELS" not in _check(**keys, MAX_LOADED_MODELS=2)


def test_models_that_requests_load_are_something_to_serve() -> None:
    models = {"llm_model_dict": {"a": _local("owner/model")}}
    assert "LLM_MODELs" not in _check(**models)
    workers = {"a": {"load_on_demand": False}}
    assert "LLM_MODELs" in _check(**models, FSCHAT_MODEL_WORKERS=workers)


def test_vision_needs_a_projector(tmp_path: Path) -> None:
    model, projector = tmp_path / "m.gguf", tmp_path / "mmproj.gguf"
    model.touch()
    projector.touch()
    entries = {
        "whole": _local(str(model), model_type="VL", mmproj_path=str(projector)),
        "none": _local(str(model), model_type="VL"),
        "gone": _local(str(model), model_type="VL", mmproj_path="gone.gguf"),
        "folder": _local(str(model), model_type="VL", mmproj_path=str(tmp_path)),
        "idle": _local(str(model), mmproj_path=str(projector)),
        "hub": _local("owner/model", model_type="VL", mmproj_path=str(projector)),
    }
    problems = _check(LLM_MODELs=list(entries), llm_model_dict=entries)
    told = {path: (one.severity, one.message) for path, one in problems.items()}
    assert told['llm_model_dict["none"]["model_type"]'][0] == "error"
    assert "has no projector" in told['llm_model_dict["none"]["model_type"]'][1]
    assert "is no file" in told['llm_model_dict["gone"]["mmproj_path"]'][1]
    assert "is no file" in told['llm_model_dict["folder"]["mmproj_path"]'][1]
    assert told['llm_model_dict["idle"]["mmproj_path"]'][0] == "warning"
    assert "only GGUF models" in told['llm_model_dict["hub"]["model_type"]'][1]
    assert not any("whole" in path for path in told)


def test_vision_by_the_environment(tmp_path: Path) -> None:
    model, projector = tmp_path / "m.gguf", tmp_path / "mmproj.gguf"
    model.touch()
    projector.touch()
    environ = {"MODEL_PATH": str(model), "MODEL_TYPE": "VL"}

    def errors() -> list[Problem]:
        found = check_settings(load_settings(tmp_path, environ))
        return [problem for problem in found if problem.severity == "error"]

    (problem,) = errors()
    assert problem.source == "environment variable MODEL_TYPE"
    assert "MMPROJ_PATH" in problem.mend
    environ["MMPROJ_PATH"] = str(tmp_path / "gone.gguf")
    (problem,) = errors()
    assert problem.source == "environment variable MMPROJ_PATH"
    environ["MMPROJ_PATH"] = str(projector)
    assert errors() == []


def test_declared_twice() -> None:
    problems = _check(LLM_MODEL="a", llm_model_dict={"a": _local()}, ONLINE_LLM_MODEL={"a": {}})
    assert "of another kind" in problems['ONLINE_LLM_MODEL["a"]'].message


def test_a_providers_key_that_looks_misspelt() -> None:
    entry = {"provider": "QwenWorker", "api_bas_url": "x", "APPID": "7"}
    problems = _check(ONLINE_LLM_MODEL={"q": entry})
    assert list(problems) == ['ONLINE_LLM_MODEL["q"]["api_bas_url"]']
    assert '"api_base_url"' in problems['ONLINE_LLM_MODEL["q"]["api_bas_url"]'].mend


def test_worker_entries_without_a_model() -> None:
    problems = _check(
        LLM_MODEL="tiny-chat",
        ONLINE_LLM_MODEL={"tiny-chat": {}},
        FSCHAT_MODEL_WORKERS={"default": {}, "tiny_chat": {}, "zzz": {}},
    )
    problem = problems['FSCHAT_MODEL_WORKERS["tiny_chat"]']
    assert problem.severity == "warning"
    assert problem.message.endswith("tiny_chat, zzz")
    assert problem.mend.startswith('Did you mean "tiny-chat" for "tiny_chat"?')


def test_what_belongs_to_one_model_in_the_default_entry() -> None:
    default = {"port": 20002, "openai_server": "http://h:1", "model_names": ["a"]}
    problems = _check(FSCHAT_MODEL_WORKERS={"default": default})
    assert 'FSCHAT_MODEL_WORKERS["default"]["port"]' not in problems
    for key in ("openai_server", "model_names"):
        problem = problems[f'FSCHAT_MODEL_WORKERS["default"]["{key}"]']
        assert problem.mend == f'Write it as FSCHAT_MODEL_WORKERS["<model>"]["{key}"]'


def test_nothing_to_serve() -> None:
    problem = _check()["LLM_MODELs"]
    assert problem.severity == "warning"
    assert "no model is started" in problem.message


def test_a_model_that_asks_our_own_gateway_needs_its_key() -> None:
    def found(key: str, *, keys: list[str], port: int = 8888) -> Problem | None:
        entry = {"api_base_url": f"http://127.0.0.1:{port}/v1", "api_key": key, "provider": "P"}
        problems = _check(
            LLM_MODEL="e", ONLINE_LLM_MODEL={"e": entry}, FSCHAT_OPENAI_API={"api_keys": keys}
        )
        return problems.get('ONLINE_LLM_MODEL["e"]["api_key"]')

    problem = found("EMPTY", keys=["sk-ours"])
    assert problem is not None
    assert problem.severity == "warning"
    assert "sk-ours" not in str(problem)
    hashed = "sha256:" + sha256(b"sk-ours").hexdigest()
    assert not found("sk-ours", keys=["sk-ours"])
    assert not found("sk-ours", keys=[hashed])
    assert not found("EMPTY", keys=[])
    assert not found("EMPTY", keys=["sk-ours"], port=9999)
