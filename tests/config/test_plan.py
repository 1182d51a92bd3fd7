from typing import Any

import pytest

from dev_opsgpt.config import ConfigError, Settings
from dev_opsgpt.config.plan import DEFAULT_PROVIDER, ModelPlan

_LOCAL = {"local_model_path": "owner/local"}


def _plans(**keys: Any) -> dict[str, ModelPlan]:
    return {plan.name: plan for plan in Settings.model_validate(keys).models_to_start()}


def test_order_and_each_name_once() -> None:
    plans = _plans(
        LLM_MODEL="b",
        LLM_MODELs=["a", "b", "a"],
        llm_model_dict={"a": _LOCAL, "b": _LOCAL, "unused": _LOCAL},
        ONLINE_LLM_MODEL={"on": {"provider": "QwenWorker"}, "off": {"version": "x"}},
        FSCHAT_MODEL_WORKERS={"srv": {"openai_server": "http://10.0.0.5:8000/v1"}},
    )
    assert [(name, plan.kind) for name, plan in plans.items()] == [
        ("b", "local"),
        ("a", "local"),
        ("on", "online"),
        ("srv", "attached"),
    ]


def test_an_online_entry_without_provider_starts_when_named() -> None:
    plans = _plans(LLM_MODELs=["openai-api"], ONLINE_LLM_MODEL={"openai-api": {"version": "x"}})
    assert plans["openai-api"].provider == DEFAULT_PROVIDER
    assert plans["openai-api"].online is not None


def test_vllm_goes_before_llm_model_dict() -> None:
    plans = _plans(
        LLM_MODEL="a",
        llm_model_dict={"a": _LOCAL},
        VLLM_MODEL_DICT={"a": "owner/vllm"},
    )
    assert (plans["a"].kind, plans["a"].path) == ("vllm", "owner/vllm")


def test_without_use_fastchat_no_local_engine_starts() -> None:
    plans = _plans(
        USE_FASTCHAT=False,
        LLM_MODELs=["a", "v", "both"],
        llm_model_dict={"a": _LOCAL, "both": _LOCAL},
        VLLM_MODEL_DICT={"v": "x"},
        ONLINE_LLM_MODEL={"both": {"version": "x"}},
    )
    assert {name: plan.kind for name, plan in plans.items()} == {"both": "online"}


def test_use_fastchat_follows_the_name_of_the_main_model() -> None:
    assert Settings.model_validate({"LLM_MODEL": "tiny-chat"}).use_fastchat
    assert not Settings.model_validate({"LLM_MODEL": "gpt-4"}).use_fastchat
    assert Settings.model_validate({"LLM_MODEL": "gpt-4", "USE_FASTCHAT": True}).use_fastchat


def test_ports() -> None:
    plans = _plans(
        LLM_MODELs=["a", "b", "c", "d"],
        llm_model_dict=dict.fromkeys("abcd", _LOCAL),
        FSCHAT_CONTROLLER={"port": 20003},
        FSCHAT_OPENAI_API={"port": 20004},
        FSCHAT_MODEL_WORKERS={
            "b": {"port": 20100, "replicas": 2},
            "d": {"port": 20005},
            "stopped": {"port": 20006},
        },
    )
    assert {name: plan.ports for name, plan in plans.items()} == {
        "a": (20002,),
        "b": (20100, 20007),
        "c": (20008,),
        "d": (20005,),
    }
    assert plans["b"].worker.port == 20100
    assert plans["b"].addresses == ("http://127.0.0.1:20100", "http://127.0.0.1:20007")


def test_the_default_entrys_port_is_the_first() -> None:
    plans = _plans(
        LLM_MODELs=["a", "b"],
        llm_model_dict=dict.fromkeys("ab", _LOCAL),
        FSCHAT_MODEL_WORKERS={"default": {"port": 30000}},
    )
    assert [plan.ports for plan in plans.values()] == [(30000,), (30001,)]


def test_addresses_are_the_advertised_ones() -> None:
    plans = _plans(
        LLM_MODEL="a",
        llm_model_dict={"a": _LOCAL},
        FSCHAT_MODEL_WORKERS={
            "default": {"host": "0.0.0.0", "advertise_host": "10.0.0.5"},
            "srv": {"openai_server": "http://10.0.0.6:8000/v1"},
        },
    )
    assert plans["a"].addresses == ("http://10.0.0.5:20002",)
    assert plans["srv"].addresses == ("http://10.0.0.6:8000/v1",)
    assert plans["srv"].ports == ()


def test_served_names() -> None:
    plans = _plans(
        LLM_MODELs=["a", "b"],
        llm_model_dict=dict.fromkeys("ab", _LOCAL),
        FSCHAT_MODEL_WORKERS={"a": {"model_names": ["a", "alias"]}},
    )
    assert plans["a"].served_names == ("a", "alias")
    assert plans["b"].served_names == ("b",)


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {
            "LLM_MODEL": "a",
            "llm_model_dict": dict.fromkeys("ab", _LOCAL),
            "ONLINE_LLM_MODEL": {"on": {"provider": "QwenWorker"}},
            "FSCHAT_MODEL_WORKERS": {"srv": {"openai_server": "http://h:1"}},
        }
    )


def test_exactly_the_named_models(settings: Settings) -> None:
    assert [plan.name for plan in settings.models_to_start(["b", "on"])] == ["b", "on"]


def test_one_more_model_beside_those_running(settings: Settings) -> None:
    assert settings.plan_for("b", taken_ports=[20002, 20003]).ports == (20004,)


def test_startable_models(settings: Settings) -> None:
    assert settings.startable_models() == ["a", "b", "on"]
    online_only = settings.model_copy(update={"use_fastchat": False})
    assert online_only.startable_models() == ["on"]


def test_a_name_declared_nowhere(settings: Settings) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.models_to_start(["onn", "zzz"])
    first, second = caught.value.problems
    assert '"onn" names a model that is declared nowhere' in first.message
    assert first.mend.startswith('Did you mean "on"? Else declare it in llm_model_dict')
    assert second.mend.startswith("Declare it in llm_model_dict")


def test_a_local_model_by_name_without_use_fastchat(settings: Settings) -> None:
    online_only = settings.model_copy(update={"use_fastchat": False})
    with pytest.raises(ConfigError, match="USE_FASTCHAT is false"):
        online_only.plan_for("b")
