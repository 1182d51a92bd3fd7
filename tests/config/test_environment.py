import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.config.check import check_settings
from dev_opsgpt.config.environment import layers, top_level, unknown
from dev_opsgpt.config.settings import Settings

Configure = Callable[..., Settings]
Refuse = Callable[..., list[str]]


def _values(environ: dict[str, str], base: dict[str, Any] | None = None) -> list[Any]:
    return [layer.values for layer in layers(environ, Settings, base or {})]


def test_keys_are_found_without_regard_to_case() -> None:
    environ = {"OPSGPT__LLM_MODELS": '["a"]', "OPSGPT__fschat_openai_api__PORT": "9000"}
    assert _values(environ) == [{"LLM_MODELs": ["a"]}, {"FSCHAT_OPENAI_API": {"port": 9000}}]


@pytest.mark.parametrize("part", ["tiny-chat.v1", "TINY-CHAT.V1", "TINY_CHAT_V1", "tiny_chat_v1"])
@pytest.mark.parametrize("table", ["llm_model_dict", "ONLINE_LLM_MODEL"])
def test_model_names_are_found_as_a_shell_can_write_them(part: str, table: str) -> None:
    environ = {f"OPSGPT__FSCHAT_MODEL_WORKERS__{part}__N_CTX": "512"}
    base = {table: {"tiny-chat.v1": {}}}
    assert _values(environ, base) == [{"FSCHAT_MODEL_WORKERS": {"tiny-chat.v1": {"n_ctx": 512}}}]


def test_a_new_name_is_taken_as_written() -> None:
    environ = {"OPSGPT__LLM_MODEL_DICT__New__LOCAL_MODEL_PATH": "x.gguf"}
    assert _values(environ) == [{"llm_model_dict": {"New": {"local_model_path": "x.gguf"}}}]


def test_text_stays_text_and_the_rest_is_json() -> None:
    environ = {
        "OPSGPT__FSCHAT_MODEL_WORKERS__m__DEFAULT_PARAMS__temperature": "0.5",
        "OPSGPT__FSCHAT_MODEL_WORKERS__m__GPUS": "0",
        "OPSGPT__FSCHAT_MODEL_WORKERS__m__CONV_TEMPLATE": "null",
        "OPSGPT__LLM_MODEL": "7",
        "OPSGPT__USE_FASTCHAT": "true",
        "OPSGPT__FSCHAT_CONTROLLER": '{"port": 5}',
        "OPSGPT__VLLM_MODEL_DICT__m": "true",
    }
    merged: dict[str, Any] = {}
    for values in _values(environ):
        for key, value in values.items():
            merged.setdefault(key, []).append(value)
    assert merged == {
        "FSCHAT_MODEL_WORKERS": [
            {"m": {"conv_template": None}},
            {"m": {"gpus": "0"}},
            {"m": {"default_params": {"temperature": 0.5}}},
        ],
        "LLM_MODEL": ["7"],
        "USE_FASTCHAT": [True],
        "FSCHAT_CONTROLLER": [{"port": 5}],
        "VLLM_MODEL_DICT": [{"m": "true"}],
    }


@given(st.text())
def test_any_text_is_a_model_name(text: str) -> None:
    assert _values({"OPSGPT__LLM_MODEL": text}) == [{"LLM_MODEL": text}]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_json_reaches_a_free_dictionary(value: Any) -> None:
    environ = {"OPSGPT__FSCHAT_MODEL_WORKERS__m__ENGINE_ARGS__x": json.dumps(value)}
    assert _values(environ) == [{"FSCHAT_MODEL_WORKERS": {"m": {"engine_args": {"x": value}}}}]


@given(st.text(alphabet="_ABCm", max_size=12), st.text(max_size=5))
def test_no_variable_name_breaks_the_reading(rest: str, text: str) -> None:
    assert len(_values({f"OPSGPT__{rest}": text})) == 1


def test_a_deeper_variable_goes_before_its_parent(configure: Configure) -> None:
    environ = {
        "OPSGPT__FSCHAT_CONTROLLER__PORT": "7",
        "OPSGPT__FSCHAT_CONTROLLER": '{"port": 5, "fastchat_clients": true}',
    }
    controller = configure(environ=environ).controller
    assert (controller.port, controller.fastchat_clients) == (7, True)


def test_top_level_values() -> None:
    environ = {"OPSGPT__LLM_MODEL": "m", "OPSGPT__FSCHAT_OPENAI_API__PORT": "1"}
    assert top_level(environ, Settings) == {"LLM_MODEL": "m"}


def test_short_names(configure: Configure) -> None:
    environ = {
        "OPSGPT_SECRET": "s3",
        "OPSGPT_API_KEYS": "one, two,,",
        "LLM_BASE_URL": "https://up/v1",
        "OPSGPT__CLUSTER_SECRET": "lower",
    }
    settings = configure("CLUSTER_SECRET = 'file'", environ=environ)
    assert settings.secret is not None
    assert settings.secret.get_secret_value() == "s3"
    assert [key.get_secret_value() for key in settings.gateway.api_keys] == ["one", "two"]
    assert settings.gateway.llm_base_url == "https://up/v1"


def test_empty_short_names_say_nothing(configure: Configure) -> None:
    environ = {"OPSGPT_SECRET": "", "OPSGPT_API_KEYS": "", "LLM_BASE_URL": "", "MODEL_PATH": ""}
    settings = configure("CLUSTER_SECRET = ''", environ=environ)
    assert settings.secret is None
    assert settings.gateway.api_keys == []


def test_overrides_reach_what_the_files_compute(configure: Configure) -> None:
    settings = configure(
        "LLM_MODEL = 'tiny'\nUSE_FASTCHAT = 'gpt' not in LLM_MODEL",
        "DEFAULT_BIND_HOST = '127.0.0.1'\nFSCHAT_CONTROLLER = {'host': DEFAULT_BIND_HOST}",
        {"DEFAULT_BIND_HOST": "10.0.0.5"},
        {"OPSGPT__LLM_MODEL": "gpt-4"},
    )
    assert settings.use_fastchat is False
    assert settings.controller.host == "10.0.0.5"


def test_a_gguf_model_by_its_path(configure: Configure) -> None:
    environ = {"MODEL_PATH": "/m/x.gguf", "MODEL_NAME": "my-gpt", "MODEL_TYPE": "LLM"}
    settings = configure(
        "LLM_MODEL = 'gpt-4'\nUSE_FASTCHAT = 'gpt' not in LLM_MODEL", environ=environ
    )
    (plan,) = settings.models_to_start()
    assert settings.llm_model == plan.name == "my-gpt"
    assert (plan.kind, plan.path) == ("local", "/m/x.gguf")
    assert plan.local is not None
    assert plan.local.engine == "llama_cpp"
    assert (plan.worker.n_ctx, plan.worker.n_gpu_layers) == (8192, -1)
    assert plan.worker.default_params == {"temperature": 0.7, "max_tokens": 2048}


def test_the_files_go_before_the_gguf_defaults(configure: Configure) -> None:
    settings = configure(
        "llm_model_dict = {'m': {'local_model_path': 'y', 'default_params': {'temperature': 0}}}",
        "FSCHAT_MODEL_WORKERS = {'m': {'n_ctx': 512}}",
        environ={"MODEL_PATH": "x.gguf", "MODEL_NAME": "m"},
    )
    assert settings.worker("m").n_ctx == 512
    assert settings.worker("m").default_params == {"temperature": 0, "max_tokens": 2048}
    assert settings.local_models["m"].local_model_path == "x.gguf"


def test_gguf_variables_mean_nothing_without_a_path(configure: Configure) -> None:
    settings = configure(environ={"MODEL_NAME": "m", "MODEL_TYPE": "VL", "MMPROJ_PATH": "p"})
    assert settings.local_models == {}


def test_gguf_projector_and_name_by_default(configure: Configure) -> None:
    environ = {"MODEL_PATH": "x.gguf", "MMPROJ_PATH": "p.gguf"}
    settings = configure(environ=environ)
    assert settings.local_models["default-model"].mmproj_path == "p.gguf"


def test_a_wrong_value_names_its_variable(refuse: Refuse) -> None:
    environ = {
        "MODEL_PATH": "x.gguf",
        "MODEL_TYPE": "audio",
        "OPSGPT__FSCHAT_CONTROLLER__PROT": "1",
    }
    lines = refuse(environ=environ)
    assert any(
        line.startswith('environment variable MODEL_TYPE: llm_model_dict["default-model"]')
        and "one of 'LLM' or 'VL'" in line
        for line in lines
    )
    assert any(
        'OPSGPT__FSCHAT_CONTROLLER__PROT: FSCHAT_CONTROLLER["PROT"]: there is no such key' in line
        and 'Did you mean "port"?' in line
        for line in lines
    )


def test_variables_that_nobody_reads_are_told() -> None:
    environ = {
        "OPSGPT_API_KEY": "sk-1",
        "OPSGPT_PORT": "9000",
        "OPSGPT_ADMIN_KEY": "a",
        "OPSGPT_SECRET": "s",
        "OPSGPT__FSCHAT_OPENAI_API__PORT": "9000",
        "OPENAI_API_KEY": "sk-2",
    }
    first, second = unknown(environ)
    assert (first.severity, first.key) == ("warning", "OPSGPT_API_KEY")
    assert "OPSGPT_API_KEYS" in first.mend
    assert second.key == "OPSGPT_PORT"
    assert "Did you mean" not in second.mend
    assert "sk-1" not in str(first)


def test_variables_that_nobody_reads_do_not_stop_a_start(configure: Configure) -> None:
    settings = configure(environ={"OPSGPT_API_KEY": "sk-1"})
    (problem,) = (found for found in check_settings(settings) if found.source == "environment")
    assert problem.severity == "warning"
