from collections.abc import Callable
from typing import Any

import pytest

from dev_opsgpt.config import DISPATCH_METHODS, Problem, Settings, check_settings

Configure = Callable[..., Settings]


def _check(**keys: Any) -> dict[str, Problem]:
    settings = Settings.model_validate(keys)
    return {p.key: p for p in check_settings(settings) if p.key != "LLM_MODELs"}


def test_gateway_beyond_loopback_needs_keys() -> None:
    problem = _check(FSCHAT_OPENAI_API={"host": "0.0.0.0"})['FSCHAT_OPENAI_API["host"]']
    assert problem.severity == "error"
    assert "OPSGPT_API_KEYS" in problem.mend
    assert not _check(FSCHAT_OPENAI_API={"host": "0.0.0.0", "api_keys": ["k"]})
    assert not _check(FSCHAT_OPENAI_API={"host": "localhost"})


def test_controller_beyond_loopback_needs_a_secret() -> None:
    problem = _check(FSCHAT_CONTROLLER={"host": "10.0.0.5"})['FSCHAT_CONTROLLER["host"]']
    assert problem.severity == "error"
    assert "same OPSGPT_SECRET on every machine" in problem.mend
    assert not _check(FSCHAT_CONTROLLER={"host": "10.0.0.5"}, CLUSTER_SECRET="s")


@pytest.mark.parametrize("method", DISPATCH_METHODS)
def test_dispatch_methods(method: str) -> None:
    assert not _check(FSCHAT_CONTROLLER={"dispatch_method": method})


def test_unknown_dispatch_method() -> None:
    problems = _check(FSCHAT_CONTROLLER={"dispatch_method": "shorten_queue"})
    problem = problems['FSCHAT_CONTROLLER["dispatch_method"]']
    assert problem.severity == "error"
    assert problem.mend.startswith('Did you mean "shortest_queue"? Use one of least_load')


@pytest.mark.parametrize("pattern", ["*", "http://*", "https://*", ""])
def test_a_pattern_for_everyone(pattern: str) -> None:
    problems = _check(FSCHAT_CONTROLLER={"fastchat_workers": ["http://a:1*", pattern]})
    (problem,) = problems.values()
    assert (problem.severity, problem.key) == (
        "warning",
        'FSCHAT_CONTROLLER["fastchat_workers"][1]',
    )
    assert "without the secret" in problem.message


def test_equal_ports_of_servers() -> None:
    problems = _check(FSCHAT_CONTROLLER={"port": 8888})
    problem = problems['FSCHAT_OPENAI_API["port"]']
    assert problem.severity == "error"
    assert problem.message == 'port 8888 is also that of FSCHAT_CONTROLLER["port"]'
    assert "another port" in problem.mend


def test_equal_ports_of_models() -> None:
    problems = _check(
        LLM_MODELs=["a", "b"],
        ONLINE_LLM_MODEL={"a": {"port": 5}, "b": {}, "idle": {"port": 5}},
        FSCHAT_MODEL_WORKERS={"b": {"port": 5}},
    )
    # "b" comes first, because it has an entry of its own in FSCHAT_MODEL_WORKERS.
    assert problems['ONLINE_LLM_MODEL["a"]["port"]'].severity == "error"
    assert 'FSCHAT_MODEL_WORKERS["b"]["port"]' in problems['ONLINE_LLM_MODEL["a"]["port"]'].message
    assert problems['ONLINE_LLM_MODEL["idle"]["port"]'].severity == "warning"


def test_one_port_on_two_addresses() -> None:
    keys = {"LLM_MODELs": ["a", "b"], "ONLINE_LLM_MODEL": {"a": {}, "b": {}}}
    entries = {"a": {"port": 5, "host": "10.0.0.5"}, "b": {"port": 5, "host": "10.0.0.6"}}
    assert not _check(**keys, FSCHAT_MODEL_WORKERS=entries)
    entries["a"]["host"] = "0.0.0.0"
    assert _check(**keys, FSCHAT_MODEL_WORKERS=entries)


def test_a_model_named_port_is_not_a_server() -> None:
    keys = {"ONLINE_LLM_MODEL": {"port": {"port": 8888}, "on": {"provider": "QwenWorker"}}}
    assert [problem.severity for problem in _check(**keys).values()] == ["warning"]


def test_errors_come_first_and_name_their_file(configure: Configure) -> None:
    settings = configure(
        "LLM_MODEL = 'nothing'\nHISTORY_LEN = 3",
        environ={"OPSGPT__FSCHAT_CONTROLLER__HOST": "0.0.0.0"},
    )
    problems = check_settings(settings)
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities)
    by_key = {problem.key: problem.source for problem in problems}
    assert by_key['FSCHAT_CONTROLLER["host"]'] == (
        "environment variable OPSGPT__FSCHAT_CONTROLLER__HOST"
    )
    assert by_key["LLM_MODEL"].endswith("model_config.py")
    assert by_key["HISTORY_LEN"].endswith("model_config.py")


@pytest.mark.parametrize(
    ("key", "url", "fine"),
    [
        ("DATABASE_URL", "sqlite:////tmp/x.db", True),
        ("DATABASE_URL", "postgresql+psycopg://u:p@h/x", True),
        ("DATABASE_URL", "postgres://u:p@h/x", True),
        ("DATABASE_URL", "mysql://u:hidden@h/x", False),
        ("DATABASE_URL", "/tmp/hidden.db", False),
        ("REDIS_URL", "rediss://h:1/0", True),
        ("REDIS_URL", "10.0.0.5:6379", False),
    ],
)
def test_urls_of_stores(key: str, url: str, fine: bool) -> None:
    found = _check(**{key: url})
    assert list(found) == ([] if fine else [key])
    assert "hidden" not in str(found)
