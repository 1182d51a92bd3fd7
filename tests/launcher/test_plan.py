from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.config import ConfigError, Settings
from dev_opsgpt.launcher.plan import (
    CHILD,
    ONLINE_MODELS,
    LaunchPlan,
    Listen,
    ProcessSpec,
    Selection,
    engine_of,
    gateway_at,
    gateway_index,
    make_plan,
)
from dev_opsgpt.launcher.roles import controller_options


def settings(**keys: Any) -> Settings:
    values: dict[str, Any] = {
        "LLM_MODEL": "small",
        "LLM_MODELs": ["small", "cloud"],
        "llm_model_dict": {
            "small": {"local_model_path": "small.gguf"},
            "folder": {"local_model_path": "some/folder"},
        },
        "ONLINE_LLM_MODEL": {
            "cloud": {"provider": "ExampleWorker", "port": 21001},
            "sky": {"provider": "OtherWorker"},
        },
        "FSCHAT_MODEL_WORKERS": {"default": {"port": 20002}},
    }
    return Settings.model_validate(values | keys)


def plan(selection: Selection | None = None, **keys: Any) -> LaunchPlan:
    return make_plan(settings(**keys), selection or Selection(), "launcher")


def names(found: LaunchPlan) -> list[str]:
    return [spec.name for spec in found.processes]


def test_controller_is_first_then_gateway_then_workers() -> None:
    assert names(plan()) == ["controller", "gateway", "small", ONLINE_MODELS]


def test_urls() -> None:
    found = plan()
    assert (found.controller, found.gateway) == ("http://127.0.0.1:20001", "http://127.0.0.1:8888")
    assert found.owns_controller


def test_online_models_are_one_process_with_a_port_each() -> None:
    spec = plan().processes[-1]
    assert [(w.model, w.listen.port, w.served_by) for w in spec.workers] == [
        ("cloud", 21001, "ExampleWorker"),
        ("sky", 20003, "OtherWorker"),
    ]


def test_command_line_names_role_controller_launcher_and_models() -> None:
    spec = plan().processes[-1]
    assert spec.argv == (
        *CHILD,
        *("providers", "--controller", "http://127.0.0.1:20001", "--launcher", "launcher"),
        *("--model", "cloud", "21001", "--model", "sky", "20003"),
    )


def test_process_without_a_worker_that_left() -> None:
    spec = plan().processes[-1].without("http://127.0.0.1:21001")
    assert [worker.model for worker in spec.workers] == ["sky"]
    assert spec.argv[-3:] == ("--model", "sky", "20003")


def test_replicas_have_a_process_each_on_consecutive_ports() -> None:
    workers = {"default": {"port": 20002}, "small": {"replicas": 3}}
    specs = [s for s in plan(FSCHAT_MODEL_WORKERS=workers).processes if s.role == "engine"]
    assert [spec.name for spec in specs] == ["small", "small (2)", "small (3)"]
    assert [spec.workers[0].listen.port for spec in specs] == [20002, 20003, 20004]


def test_ports_tell_the_key_that_sets_them() -> None:
    workers = {"default": {"port": 20002}, "small": {"port": 20500, "replicas": 2}}
    found = plan(FSCHAT_MODEL_WORKERS=workers)
    keys = {listen.port: listen.key for spec in found.processes for listen in spec.listens}
    assert keys == {
        20001: 'FSCHAT_CONTROLLER["port"]',
        8888: 'FSCHAT_OPENAI_API["port"]',
        20500: 'FSCHAT_MODEL_WORKERS["small"]["port"]',
        20002: 'FSCHAT_MODEL_WORKERS["default"]["port"]',
        21001: 'ONLINE_LLM_MODEL["cloud"]["port"]',
        20003: 'FSCHAT_MODEL_WORKERS["default"]["port"]',
    }


def test_gpus_are_made_visible_to_the_engine_alone() -> None:
    workers = {"default": {"port": 20002}, "small": {"gpus": "1,3"}}
    found = {spec.name: spec.env for spec in plan(FSCHAT_MODEL_WORKERS=workers).processes}
    assert found["small"]["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert found["gateway"] == {}


def test_gateway_knows_the_models_on_their_way() -> None:
    (gateway,) = (spec for spec in plan().processes if spec.role == "gateway")
    declared = [
        after
        for word, after in zip(gateway.argv, gateway.argv[1:], strict=False)
        if word == "--declared"
    ]
    assert declared == ["small", "cloud", "sky"]


def test_no_local_engine_without_use_fastchat() -> None:
    found = plan(
        LLM_MODEL="gpt-cloud",
        ONLINE_LLM_MODEL={"gpt-cloud": {"provider": "X"}},
        LLM_MODELs=["small"],
    )
    assert names(found) == ["controller", "gateway", ONLINE_MODELS]


def test_attached_server_is_listed_and_starts_nothing() -> None:
    workers = {"default": {}, "far": {"openai_server": "http://10.0.0.5:8000/v1"}}
    found = plan(FSCHAT_MODEL_WORKERS=workers)
    assert [model.name for model in found.attached] == ["far"]
    assert "far" not in names(found)


def test_an_attached_server_is_limited_by_its_own_entry_only() -> None:
    far = {"openai_server": "http://10.0.0.5:8000/v1"}
    workers = {
        "default": {"limit_worker_concurrency": 3},
        "far": far,
        "near": far | {"limit_worker_concurrency": 8},
    }
    found = controller_options(settings(FSCHAT_MODEL_WORKERS=workers)).attached
    limits = {server.model: (server.limit, server.limited) for server in found}
    assert limits == {"far": (3, False), "near": (8, True)}


def test_no_register_is_told() -> None:
    workers = {"default": {"port": 20002}, "small": {"no_register": True}}
    found = {spec.name: spec for spec in plan(FSCHAT_MODEL_WORKERS=workers).processes}
    assert not found["small"].workers[0].registers


def test_another_controller_is_used_instead_of_our_own() -> None:
    found = plan(Selection(controller_address="http://10.0.0.1:20001"))
    assert names(found) == ["gateway", "small", ONLINE_MODELS]
    assert found.controller == "http://10.0.0.1:20001"
    assert all("http://10.0.0.1:20001" in spec.argv for spec in found.processes)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(local=False, online=False), ["controller", "gateway"]),
        (Selection(controller=False, gateway=False, online=False), ["small"]),
        (Selection(controller=False, gateway=False, local=False), [ONLINE_MODELS]),
        (Selection(models=("folder",)), ["controller", "gateway", "folder"]),
        (Selection(models=("sky",), controller=False, gateway=False), [ONLINE_MODELS]),
    ],
)
def test_selection(selection: Selection, expected: list[str]) -> None:
    assert names(plan(selection)) == expected


@pytest.mark.parametrize(
    ("selection", "mend"),
    [
        (Selection(online=False, models=("cloud",)), "Add -p/--api-worker"),
        (Selection(local=False, models=("small",)), "Add -m/--model-worker"),
        (Selection(models=("smal",)), 'Did you mean "small"?'),
    ],
)
def test_model_that_cannot_be_selected(selection: Selection, mend: str) -> None:
    with pytest.raises(ConfigError, match=mend.replace("?", r"\?")):
        plan(selection)


def test_engine_of() -> None:
    local = {
        "small": {"local_model_path": "small.gguf"},
        "folder": {"local_model_path": "some/folder"},
        "forced": {"local_model_path": "odd.bin", "engine": "llama_cpp"},
        "fast": {"local_model_path": "some/folder"},
    }
    found = settings(llm_model_dict=local, VLLM_MODEL_DICT={"fast": "some/folder"})
    engines = {p.name: engine_of(p) for p in found.models_to_start(list(local))}
    assert engines == {
        "small": "llama_cpp",
        "folder": "transformers",
        "forced": "llama_cpp",
        "fast": "vllm",
    }


def gateways(**keys: Any) -> list[ProcessSpec]:
    found = make_plan(settings(**keys), Selection(), "launcher", Path("/run"))
    return [spec for spec in found.processes if spec.role == "gateway"]


def test_several_gateways_share_a_port_and_a_folder() -> None:
    specs = gateways(FSCHAT_OPENAI_API={"gateway_workers": 3})
    assert [spec.name for spec in specs] == ["gateway", "gateway (2)", "gateway (3)"]
    assert [gateway_index(spec) for spec in specs] == [0, 1, 2]
    assert {spec.listen for spec in specs} == {
        Listen("127.0.0.1", 8888, 'FSCHAT_OPENAI_API["port"]')
    }
    for spec in specs:
        words = spec.arguments
        assert words[words.index("--count") + 1] == "3"
        assert words[words.index("--runtime-dir") + 1] == "/run"


def test_gateway_under_another_number() -> None:
    (spec,) = gateways()
    moved = gateway_at(spec, 7, 9)
    assert gateway_index(moved) == 7
    assert moved.arguments[moved.arguments.index("--count") + 1] == "9"
    assert gateway_at(moved, 0, 1) == spec
