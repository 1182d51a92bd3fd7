from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from dev_opsgpt.config import GatewaySettings, Settings, load_settings
from dev_opsgpt.config.paths import PROJECT_ROOT

Configure = Callable[..., Settings]


def _settings(**keys: Any) -> Settings:
    return Settings.model_validate(keys)


def test_precedence_of_worker_options() -> None:
    settings = _settings(
        ONLINE_LLM_MODEL={
            "m": {"limit_worker_concurrency": 2, "queue_size": 2, "port": 2, "api_key": "k"}
        },
        FSCHAT_MODEL_WORKERS={
            "default": {"limit_worker_concurrency": 3, "queue_size": 3, "queue_timeout": 3},
            "m": {"limit_worker_concurrency": 1},
        },
    )
    worker = settings.worker("m")
    assert (worker.limit_worker_concurrency, worker.queue_size, worker.queue_timeout) == (1, 2, 3)
    assert worker.port == 2
    assert worker.api_key is None
    assert settings.worker("other").limit_worker_concurrency == 3


def test_free_dictionaries_are_merged_by_the_same_precedence() -> None:
    settings = _settings(
        llm_model_dict={"m": {"local_model_path": "x", "default_params": {"b": 2, "c": 2}}},
        FSCHAT_MODEL_WORKERS={
            "default": {"default_params": {"a": 1, "b": 1, "c": 1}, "engine_args": {"x": 1}},
            "m": {"default_params": {"c": 3}, "engine_args": {"y": 2}},
        },
    )
    assert settings.worker("m").default_params == {"a": 1, "b": 2, "c": 3}
    assert settings.worker("m").engine_args == {"x": 1, "y": 2}
    assert settings.worker("other").default_params == {"a": 1, "b": 1, "c": 1}


def test_the_default_entry_keeps_what_belongs_to_one_worker() -> None:
    settings = _settings(
        FSCHAT_MODEL_WORKERS={"default": {"port": 20002, "model_names": ["x"], "host": "h"}}
    )
    worker = settings.worker("m")
    assert (worker.port, worker.model_names, worker.host) == (None, None, "h")


def test_general_keys_are_handed_down() -> None:
    settings = _settings(
        DEFAULT_BIND_HOST="10.0.0.5", LLM_DEVICE="cpu", FSCHAT_CONTROLLER={"host": "10.0.0.6"}
    )
    assert settings.controller.host == "10.0.0.6"
    assert settings.gateway.host == "10.0.0.5"
    assert settings.worker("m").host == "10.0.0.5"
    assert settings.worker("m").device == "cpu"


def test_addresses() -> None:
    settings = _settings(DEFAULT_BIND_HOST="0.0.0.0")
    assert settings.controller_address == "http://127.0.0.1:20001"
    assert settings.gateway_address == "http://127.0.0.1:8888"
    advertised = _settings(FSCHAT_CONTROLLER={"host": "0.0.0.0", "advertise_host": "c"})
    assert advertised.controller_address == "http://c:20001"
    named = _settings(FSCHAT_OPENAI_API={"controller_address": "http://d:1"})
    assert named.controller_address == "http://d:1"


def test_may_be_made_by_attribute_names_too() -> None:
    settings = Settings.model_validate({"llm_model": "m", "gateway": GatewaySettings(port=1)})
    assert (settings.llm_model, settings.gateway.port) == ("m", 1)


def test_is_fixed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _settings().llm_model = "x"


def test_shows_no_secret(configure: Configure) -> None:
    settings = configure(
        "ONLINE_LLM_MODEL = {'a': {'api_key': 'hidden', 'hf_token': 'hidden'}}",
        environ={"OPSGPT_SECRET": "hidden", "OPSGPT_API_KEYS": "hidden"},
    )
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(settings)


def test_the_shipped_configuration() -> None:
    settings = load_settings(PROJECT_ROOT / "configs", {})
    tiny, example = settings.models_to_start()
    assert (tiny.name, tiny.kind, tiny.ports) == ("tiny-chat", "local", (20002,))
    assert (example.name, example.provider, example.ports) == ("example", "ExampleWorker", (21001,))
    assert settings.online_models["openai-api"].provider is None
    assert settings.gateway.port == 8888
    assert settings.controller.port == 20001
    assert settings.default_bind_host == "127.0.0.1"
    assert settings.use_fastchat
    assert settings.secret is None
    assert settings.origin.notes == ()


def test_reading_leaves_the_process_alone(configure: Configure) -> None:
    import os
    import sys

    before = (dict(os.environ), set(sys.modules))
    configure("LLM_MODEL = 'a'", "from configs.model_config import LLM_MODEL as _m")
    assert (dict(os.environ), set(sys.modules)) == before
