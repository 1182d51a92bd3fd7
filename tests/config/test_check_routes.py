from typing import Any

import pytest

from dev_opsgpt.config import Problem, Settings, check_settings

MODELS = {
    "llm_model_dict": {
        "tiny-chat": {"local_model_path": "tiny-chat.gguf"},
        "idle": {"local_model_path": "tiny-chat.gguf"},
        "renamed": {"local_model_path": "tiny-chat.gguf"},
    },
    "ONLINE_LLM_MODEL": {"far-away": {"provider": "ExampleWorker"}, "listed": {}},
    "LLM_MODELs": ["tiny-chat", "renamed"],
    "FSCHAT_MODEL_WORKERS": {
        "idle": {"load_on_demand": False},
        "renamed": {"model_names": ["gpt-x", "gpt-y"]},
        "attached": {"openai_server": "http://127.0.0.1:9"},
    },
}


def check(routes: dict[str, Any], **keys: Any) -> list[Problem]:
    section = {"routes": routes} | keys.pop("FSCHAT_OPENAI_API", {})
    settings = Settings.model_validate({**MODELS, **keys, "FSCHAT_OPENAI_API": section})
    return [p for p in check_settings(settings) if p.key.startswith("FSCHAT_OPENAI_API")]


def fallback(name: str, **keys: Any) -> Problem:
    (problem,) = check({"tiny-chat": {"fallbacks": ["far-away", name]}}, **keys)
    assert problem.key == 'FSCHAT_OPENAI_API["routes"]["tiny-chat"]["fallbacks"][1]'
    return problem


def test_names_that_answer() -> None:
    names = ["far-away", "attached", "gpt-x", "gpt-y"]
    assert not check({"default": {"fallbacks": names}, "best": {"fallbacks": ["tiny-chat"]}})


def test_name_that_is_declared_nowhere() -> None:
    problem = fallback("far_away")
    assert problem.severity == "error"
    assert problem.message == '"far_away" names a model that is declared nowhere'
    assert problem.mend.startswith('Did you mean "far-away"? Declare')


@pytest.mark.parametrize(
    "keys",
    [
        {"FSCHAT_CONTROLLER": {"fastchat_workers": ["http://127.0.0.1:2100*"]}},
        {"FSCHAT_CONTROLLER": {"host": "10.0.0.5"}, "CLUSTER_SECRET": "s"},
        {"FSCHAT_OPENAI_API": {"controller_address": "http://10.0.0.5:20001"}},
    ],
)
def test_name_that_a_worker_from_elsewhere_may_bring(keys: dict[str, Any]) -> None:
    problem = fallback("vicuna", **keys)
    assert problem.severity == "warning"
    assert "if a worker from elsewhere serves it" in problem.message


def test_names_that_are_declared_and_do_not_answer() -> None:
    for name in ("idle", "listed"):
        problem = fallback(name)
        assert problem.severity == "warning"
        assert problem.message == f'"{name}" is neither started nor loaded by a request'
    problem = fallback("renamed")
    assert problem.severity == "error"
    assert 'is served as "gpt-x", "gpt-y"' in problem.message


def test_lists_are_not_followed_further() -> None:
    routes = {"best": {"fallbacks": ["tiny-chat"]}, "far-away": {"fallbacks": ["best"]}}
    (problem,) = check(routes)
    assert problem.severity == "error"
    assert "stands for other models" in problem.message


@pytest.mark.parametrize("names", [["tiny-chat"], ["far-away", "far-away"]])
def test_names_that_have_been_asked(names: list[str]) -> None:
    (problem,) = check({"tiny-chat": {"fallbacks": names}})
    assert problem.severity == "warning"
    assert "asked already" in problem.message


def test_route_of_no_model() -> None:
    routes = {name: {"retries": 1} for name in ("tiny-chat", "renamed", "gpt-x", "tiny_chat")}
    (problem,) = check(routes)
    assert problem.severity == "warning"
    assert problem.key == 'FSCHAT_OPENAI_API["routes"]["tiny_chat"]'
    assert problem.mend.startswith('Did you mean "tiny-chat"?')
    outside = {"fastchat_workers": ["http://127.0.0.1:2100*"]}
    assert check({"vicuna": {"retries": 1}})
    assert not check({"vicuna": {"retries": 1}}, FSCHAT_CONTROLLER=outside)


def test_key_that_is_a_clients_and_an_admins() -> None:
    hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    section = {"api_keys": ["other", "secret"], "admin_keys": [hashed]}
    (problem,) = check({}, FSCHAT_OPENAI_API=section)
    assert (problem.severity, problem.key) == ("warning", 'FSCHAT_OPENAI_API["api_keys"][1]')
    assert "secret" not in str(problem)
