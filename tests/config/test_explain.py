from collections.abc import Callable

import pytest

Refuse = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("server", "key", "found", "mend"),
    [
        (
            "FSCHAT_MODEL_WORKERS = {'tiny-chat': {'port': '20o2'}}",
            'FSCHAT_MODEL_WORKERS["tiny-chat"]["port"]',
            "found '20o2'",
            "It must be a whole number. Port the worker binds to.",
        ),
        (
            "FSCHAT_CONTROLLER = {'port': 70000}",
            'FSCHAT_CONTROLLER["port"]',
            "found 70000",
            "It must be at most 65535",
        ),
        (
            "FSCHAT_OPENAI_API = {'retries': -1}",
            'FSCHAT_OPENAI_API["retries"]',
            "found -1",
            "It must be at least 0",
        ),
        (
            "FSCHAT_OPENAI_API = {'read_timeout': 0}",
            'FSCHAT_OPENAI_API["read_timeout"]',
            "found 0",
            "It must be more than 0",
        ),
        (
            "FSCHAT_OPENAI_API = {'read_timeout': float('inf')}",
            'FSCHAT_OPENAI_API["read_timeout"]',
            "found inf",
            "It must be a finite number",
        ),
        (
            "FSCHAT_CONTROLLER = {'fastchat_clients': 'maybe'}",
            'FSCHAT_CONTROLLER["fastchat_clients"]',
            "found 'maybe'",
            "It must be True or False",
        ),
        (
            "FSCHAT_CONTROLLER = {'fastchat_workers': 'http://a'}",
            'FSCHAT_CONTROLLER["fastchat_workers"]',
            "found 'http://a'",
            "It must be a list",
        ),
        ("FSCHAT_CONTROLLER = 5", "FSCHAT_CONTROLLER", "found 5", "It must be a dictionary"),
        ("FSCHAT_MODEL_WORKERS = [1]", "FSCHAT_MODEL_WORKERS", "found a list of 1", "a dictionary"),
        ("LOG_DIR = {}", "LOG_DIR", "found a dictionary", "It must be a string"),
        ("DEFAULT_BIND_HOST = 5", "DEFAULT_BIND_HOST", "found 5", "It must be a string"),
        ("LLM_MODEL = 5", "LLM_MODEL", "found 5", "It must be a string"),
        ("LLM_MODELs = 'a'", "LLM_MODELs", "found 'a'", "It must be a list"),
        ("LLM_MODELs = [1]", "LLM_MODELs[0]", "found 1", "It must be a string"),
        ("LLM_DEVICE = 'gpu'", "LLM_DEVICE", "found 'gpu'", "It must be one of 'auto', 'cpu'"),
        (
            "FSCHAT_MODEL_WORKERS = {'a': {'openai_server': 'h:1'}}",
            'FSCHAT_MODEL_WORKERS["a"]["openai_server"]',
            "found 'h:1'",
            'It must be a URL that begins with "http://" or "https://"',
        ),
        (
            "FSCHAT_MODEL_WORKERS = {'a': {'model_names': []}}",
            'FSCHAT_MODEL_WORKERS["a"]["model_names"]',
            "found a list of 0",
            "It must be a list that is not empty",
        ),
        (
            "llm_model_dict = {'a': {}}",
            'llm_model_dict["a"]["local_model_path"]',
            "this key is missing",
            'Add "local_model_path": The model: looked for under `llm_models/` first',
        ),
        (
            "llm_model_dict = {'a': {'local_model_path': ''}}",
            'llm_model_dict["a"]["local_model_path"]',
            "found ''",
            "It must be a string that is not empty",
        ),
        (
            "ONLINE_LLM_MODEL = {'a': {'limit_worker_concurrency': 'x'}}",
            'ONLINE_LLM_MODEL["a"]["limit_worker_concurrency"]',
            "found 'x'",
            "It must be a whole number. Requests a worker runs at the same time.",
        ),
        (
            "FSCHAT_CONTROLLER = {'prot': 1}",
            'FSCHAT_CONTROLLER["prot"]',
            "there is no such key",
            'Did you mean "port"?',
        ),
        (
            "FSCHAT_CONTROLLER = {'zzzzzz': 1}",
            'FSCHAT_CONTROLLER["zzzzzz"]',
            "there is no such key",
            "Known keys: advertise_host, dispatch_method",
        ),
        (
            "llm_model_dict = {'a': {'local_model_path': 'x', 'local_path': 'y'}}",
            'llm_model_dict["a"]["local_path"]',
            "there is no such key",
            'Did you mean "local_model_path"?',
        ),
        (
            "VLLM_MODEL_DICT = {5: 'x'}",
            "VLLM_MODEL_DICT[5]",
            "a name is not a string",
            "Put the name in quotes",
        ),
    ],
)
def test_each_fault_names_file_key_finding_and_mend(
    refuse: Refuse, server: str, key: str, found: str, mend: str
) -> None:
    (line,) = refuse(server=server)
    source, rest = line.split("server_config.py: ")
    assert source
    assert rest.startswith(f"{key}: {found}")
    assert mend in rest


def test_all_faults_come_at_once(refuse: Refuse) -> None:
    lines = refuse(
        "LLM_MODELs = 1\nLLM_MODELS = []",
        "FSCHAT_CONTROLLER = {'port': 'a', 'prot': 2}",
        {"FSCHAT_OPENAI_API": {"port": "b"}},
        {"OPSGPT__DRAIN_TIMEOUT": "soon"},
    )
    assert len(lines) == 6
    assert sum("local_config.json: FSCHAT_OPENAI_API" in line for line in lines) == 1
    assert sum("environment variable OPSGPT__DRAIN_TIMEOUT" in line for line in lines) == 1


@pytest.mark.parametrize(
    "server",
    [
        "FSCHAT_OPENAI_API = {'api_keys': 'hidden'}",
        "FSCHAT_OPENAI_API = {'api_keys': ['sha256:hidden']}",
        "FSCHAT_OPENAI_API = {'api_keys': [{'k': 'hidden'}]}",
        "ONLINE_LLM_MODEL = {'a': {'api_key': ['hidden']}}",
        "ONLINE_LLM_MODEL = {'a': {'secret_key': {'x': 'hidden'}}}",
        "FSCHAT_MODEL_WORKERS = {'a': {'api_key': b'hidden'.hex, 'openai_server': 5}}",
        "CLUSTER_SECRET = ['hidden']",
        "FSCHAT_MODEL_WORKERS = {'a': {'openai_server': 'ftp://user:hidden@host'}}",
        "FSCHAT_CONTROLLER = {'api_key': 'hidden'}",
        "FSCHAT_CONTROLLER = ['hidden']",
    ],
)
def test_a_secret_is_never_told(refuse: Refuse, server: str) -> None:
    lines = refuse(server=server)
    assert lines
    assert not any("hidden" in line for line in lines)


def test_a_long_value_is_cut(refuse: Refuse) -> None:
    (line,) = refuse(server=f"LLM_DEVICE = {'x' * 500!r}")
    assert "x" * 50 in line
    assert "x" * 70 not in line
