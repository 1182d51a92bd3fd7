from collections.abc import Callable

import pytest

from dev_opsgpt.config import Settings, check_settings
from dev_opsgpt.config.legacy import WORKER_KEYS

Configure = Callable[..., Settings]

_MIGRATED_MODEL_CONFIG = """
import os
embedding_model_dict = {"text2vec": "shibing624/text2vec-base"}
EMBEDDING_MODEL = "text2vec"
LLM_DEVICE = "cpu"
LLM_MODEL = "chatglm-6b"
LLM_MODELs = [LLM_MODEL]
HISTORY_LEN = 3
NLTK_DATA_PATH = os.path.join("a", "nltk_data")
llm_model_dict = {"chatglm-6b": {"local_model_path": "THUDM/chatglm-6b", "api_key": "EMPTY"}}
"""
_MIGRATED_SERVER_CONFIG = """
from .model_config import LLM_MODEL, llm_model_dict, LLM_DEVICE
import json, os
OPEN_CROSS_DOMAIN = False
DEFAULT_BIND_HOST = "127.0.0.1"
WEBUI_SERVER = {"host": DEFAULT_BIND_HOST, "port": 8501}
FSCHAT_OPENAI_API = {"host": DEFAULT_BIND_HOST, "port": 8888, "docker_port": 8888}
FSCHAT_MODEL_WORKERS = {
    "default": {
        "host": DEFAULT_BIND_HOST, "port": 20002, "device": LLM_DEVICE, "gpus": None,
        "numgpus": 1, "cpu_offloading": None, "gptq_wbits": 16, "max_gpu_memory": "20GiB",
        "tensor_parallel_size": 2, "infer_turbo": False,
    },
    "chatglm-6b": {"device": "cuda", "xft_dtype": "fp16"},
}
FSCHAT_CONTROLLER = {"host": DEFAULT_BIND_HOST, "port": 20001, "dispatch_method": "shortest_queue"}

def fschat_controller_address() -> str:
    return f"http://{FSCHAT_CONTROLLER['host']}:{FSCHAT_CONTROLLER['port']}"
"""


def test_a_configuration_brought_along_works(configure: Configure) -> None:
    settings = configure(_MIGRATED_MODEL_CONFIG, _MIGRATED_SERVER_CONFIG)
    (plan,) = settings.models_to_start()
    assert (plan.name, plan.worker.device, plan.ports) == ("chatglm-6b", "cuda", (20002,))
    problems = {problem.key: problem for problem in check_settings(settings)}
    assert all(problem.severity == "warning" for problem in problems.values())
    tensor_parallel = problems['FSCHAT_MODEL_WORKERS["default"]["tensor_parallel_size"]']
    assert tensor_parallel.source.endswith("server_config.py")
    assert tensor_parallel.mend == (
        'For vLLM write it as "engine_args": {"tensor_parallel_size": ...}; else remove it'
    )
    assert problems['FSCHAT_MODEL_WORKERS["default"]["numgpus"]'].mend == 'Use "num_gpus"'
    assert problems["embedding_model_dict"].source.endswith("model_config.py")
    assert {
        'FSCHAT_OPENAI_API["docker_port"]',
        'FSCHAT_MODEL_WORKERS["chatglm-6b"]["xft_dtype"]',
        "WEBUI_SERVER",
        "OPEN_CROSS_DOMAIN",
        "HISTORY_LEN",
    } <= set(problems)


@pytest.mark.parametrize("key", sorted(WORKER_KEYS))
def test_each_legacy_key_warns_and_says_what_instead(configure: Configure, key: str) -> None:
    settings = configure(server=f"FSCHAT_MODEL_WORKERS = {{'default': {{'{key}': 1}}}}")
    (note,) = settings.origin.notes
    assert note.severity == "warning"
    assert note.key == f'FSCHAT_MODEL_WORKERS["default"]["{key}"]'
    assert note.mend == WORKER_KEYS[key]


def test_cpu_offloading_warns_only_where_it_is_on(configure: Configure) -> None:
    key = 'FSCHAT_MODEL_WORKERS["default"]["cpu_offloading"]'
    for value, warned in (("None", False), ("True", True)):
        server = f"FSCHAT_MODEL_WORKERS = {{'default': {{'cpu_offloading': {value}}}}}"
        problems = [problem.key for problem in check_settings(configure(server=server))]
        assert (key in problems) is warned
