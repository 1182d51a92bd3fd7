import json
from collections.abc import Callable

from dev_opsgpt.config import Settings, json_schema, masked_dump

Configure = Callable[..., Settings]


def test_masked_dump_is_json_without_secrets(configure: Configure) -> None:
    settings = configure(
        "llm_model_dict = {'a': {'local_model_path': 'x', 'api_key': 'hidden'}}\n"
        "ONLINE_LLM_MODEL = {'b': {'APISecret': 'hidden', 'secret_key': 'hidden',"
        " 'x_token': 'hidden', 'APPID': '7', 'headers': {'Authorization': 'hidden'},"
        " 'openai_proxy': 'http://u:hidden@h'}}",
        "FSCHAT_MODEL_WORKERS = {'default': {'engine_args': {'hf_token': 'hidden', 'seed': 1}},"
        " 's': {'openai_server': 'http://h:1', 'api_key': 'hidden'}}",
        environ={"OPSGPT_SECRET": "hidden", "OPSGPT_API_KEYS": "hidden,hidden"},
    )
    dump = masked_dump(settings)
    assert "hidden" not in json.dumps(dump)
    assert dump["CLUSTER_SECRET"] == "***"
    assert dump["FSCHAT_OPENAI_API"]["api_keys"] == ["***", "***"]
    assert dump["ONLINE_LLM_MODEL"]["b"]["APPID"] == "7"
    assert dump["ONLINE_LLM_MODEL"]["b"]["openai_proxy"] == "http://***@h"
    assert dump["FSCHAT_MODEL_WORKERS"]["default"]["engine_args"] == {"hf_token": "***", "seed": 1}


def test_the_dump_has_the_files_keys() -> None:
    settings = Settings.model_validate({"LLM_MODEL": "m"})
    assert Settings.model_validate(masked_dump(settings)) == settings


def test_json_schema() -> None:
    schema = json_schema()
    assert {"LLM_MODELs", "llm_model_dict", "FSCHAT_MODEL_WORKERS"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    worker = schema["$defs"]["WorkerSettings"]
    assert worker["properties"]["queue_size"]["description"].startswith("Requests that may wait")
