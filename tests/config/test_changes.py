"""Every key is classified, and each difference leads to what its class says."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dev_opsgpt.config import Settings
from dev_opsgpt.config.changes import EFFECTS, Changes, Effect, changes, held
from dev_opsgpt.config.models import LocalModel, OnlineModel, Section, WorkerSettings
from dev_opsgpt.config.problems import KeyPath, spell
from dev_opsgpt.config.schema import as_model, fields_of

SERVER = "http://10.0.0.5:8000/v1"


def settings(**keys: Any) -> Settings:
    values: dict[str, Any] = {
        "LLM_MODEL": "a",
        "LLM_MODELs": ["a", "cloud"],
        "llm_model_dict": {
            "a": {"local_model_path": "a.gguf"},
            "b": {"local_model_path": "b.gguf"},
        },
        "VLLM_MODEL_DICT": {"v": "owner/v"},
        "ONLINE_LLM_MODEL": {"cloud": {"provider": "P", "api_key": "k", "own": [1]}},
        "FSCHAT_MODEL_WORKERS": {"default": {"port": 20002}, "far": {"openai_server": SERVER}},
    }
    return Settings.model_validate(values | keys)


def keys_of(model: type[BaseModel], path: KeyPath = ()) -> Iterator[KeyPath]:
    """The key of every field; the two servers' sections are told field by field."""
    for key, field in fields_of(model).items():
        section = as_model(field.annotation)
        if section is not None and (*path, key) not in EFFECTS:
            yield from keys_of(section, (*path, key))
        else:
            yield (*path, key)


# Another value for each key that is classified as something else than MODELS.
OTHER: dict[KeyPath, Any] = {
    ("LLM_DEVICE",): "cpu",
    ("DEFAULT_BIND_HOST",): "127.0.0.2",
    ("CLUSTER_SECRET",): "other",
    ("DATABASE_URL",): "sqlite:///x",
    ("REDIS_URL",): "redis://127.0.0.1/1",
    ("DATA_DIR",): "x",
    ("LOG_DIR",): "x",
    ("MAX_LOADED_MODELS",): 3,
    ("MAX_LOADED_MEMORY",): "3GiB",
    ("MAX_LOADED_GPU_MEMORY",): "3GiB",
    ("DRAIN_TIMEOUT",): 1.0,
    ("FSCHAT_CONTROLLER", "host"): "127.0.0.2",
    ("FSCHAT_CONTROLLER", "port"): 1,
    ("FSCHAT_CONTROLLER", "advertise_host"): "x",
    ("FSCHAT_CONTROLLER", "dispatch_method"): "lottery",
    ("FSCHAT_CONTROLLER", "fastchat_workers"): ["x"],
    ("FSCHAT_CONTROLLER", "fastchat_clients"): True,
    ("FSCHAT_OPENAI_API", "host"): "127.0.0.2",
    ("FSCHAT_OPENAI_API", "port"): 1,
    ("FSCHAT_OPENAI_API", "api_keys"): ["x"],
    ("FSCHAT_OPENAI_API", "max_body_size"): 1,
    ("FSCHAT_OPENAI_API", "connect_timeout"): 1.0,
    ("FSCHAT_OPENAI_API", "read_timeout"): 1.0,
    ("FSCHAT_OPENAI_API", "retries"): 7,
    ("FSCHAT_OPENAI_API", "retry_budget"): 0.7,
    ("FSCHAT_OPENAI_API", "routes"): {"a": {"retries": 1}},
    ("FSCHAT_OPENAI_API", "breaker"): {"failures": 1},
    ("FSCHAT_OPENAI_API", "gateway_workers"): 2,
    ("FSCHAT_OPENAI_API", "admin_keys"): ["x"],
    ("FSCHAT_OPENAI_API", "usage"): False,
    ("FSCHAT_OPENAI_API", "usage_days"): 3,
    ("FSCHAT_OPENAI_API", "access_log"): True,
    ("FSCHAT_OPENAI_API", "log_format"): "json",
    ("FSCHAT_OPENAI_API", "otlp_endpoint"): "http://127.0.0.1:4318",
    ("FSCHAT_OPENAI_API", "llm_base_url"): "http://127.0.0.1:1",
    ("FSCHAT_OPENAI_API", "controller_address"): "http://127.0.0.1:1",
}
FIELDS = {
    Effect.IN_PLACE: "in_place",
    Effect.NEW_GATEWAYS: "new_gateways",
    Effect.COUNT: "count",
    Effect.RESTART: "restart",
}
# Workers read these too.
OF_WORKERS = {
    ("FSCHAT_OPENAI_API", "max_body_size"),
    ("FSCHAT_CONTROLLER", "fastchat_clients"),
}


def with_key(path: KeyPath, value: Any) -> Settings:
    for key in reversed(path):
        value = {str(key): value}
    return settings(**value)


def test_every_key_is_classified() -> None:
    assert set(keys_of(Settings)) == EFFECTS.keys()


def test_every_key_that_belongs_to_no_model_is_tried_here() -> None:
    assert OTHER.keys() == {key for key, effect in EFFECTS.items() if effect is not Effect.MODELS}


@pytest.mark.parametrize("path", OTHER, ids=spell)
def test_changed_key_has_the_effect_of_its_class(path: KeyPath) -> None:
    found = changes(settings(), with_key(path, OTHER[path]))
    effect = EFFECTS[path]
    if effect is Effect.HANDED_DOWN:
        assert found.changed, "workers take it from there"
        return
    expected = Changes(**{FIELDS[effect]: (spell(path),)})
    if path in OF_WORKERS:
        assert set(found.changed) == {"a", "b", "cloud", "v"}
        found = Changes(in_place=found.in_place)
    assert found == expected
    assert found


@pytest.mark.parametrize("path", OTHER, ids=spell)
def test_only_what_needs_a_restart_is_held(path: KeyPath) -> None:
    old, new = settings(), with_key(path, OTHER[path])
    found = held(old, new)
    restart = EFFECTS[path] is Effect.RESTART
    if EFFECTS[path] is not Effect.HANDED_DOWN:
        assert found == (old if restart else new)
    assert not changes(old, found).restart


def test_held_settings_know_where_they_come_from() -> None:
    new = settings()
    assert held(settings(LOG_DIR="x"), new).origin is new.origin


def test_nothing_has_changed() -> None:
    assert not changes(settings(), settings())


def changed(**keys: Any) -> Changes:
    return changes(settings(), settings(**keys))


def local(**models: dict[str, Any]) -> dict[str, Any]:
    declared = {"a": {"local_model_path": "a.gguf"}, "b": {"local_model_path": "b.gguf"}}
    return {"llm_model_dict": declared | models}


def workers(**entries: dict[str, Any]) -> dict[str, Any]:
    known = {"default": {"port": 20002}, "far": {"openai_server": SERVER}}
    return {"FSCHAT_MODEL_WORKERS": known | entries}


def test_models_come_and_go() -> None:
    assert changed(LLM_MODELs=["a", "b", "cloud"]) == Changes(added=("b",))
    assert changed(LLM_MODEL="b", LLM_MODELs=["b"]) == Changes(added=("b",), removed=("a",))
    # An entry with a provider runs without being named.
    assert not changed(LLM_MODELs=["a"])
    assert changed(ONLINE_LLM_MODEL={}, LLM_MODELs=["a"]) == Changes(removed=("cloud",))


def test_model_that_is_declared_no_more_is_removed_even_if_only_an_order_started_it() -> None:
    only = {"a": {"local_model_path": "a.gguf"}}
    assert changed(llm_model_dict=only) == Changes(removed=("b",))


def test_model_that_may_no_longer_run_is_removed() -> None:
    found = changed(USE_FASTCHAT=False)
    assert set(found.removed) == {"a", "b", "v"}


def test_models_that_were_chosen_by_hand() -> None:
    found = changes(settings(), settings(LLM_MODELs=["a", "b"]), ["a"])
    assert not found
    only = {"a": {"local_model_path": "a.gguf"}}
    found = changes(settings(), settings(llm_model_dict=only), ["a", "b"])
    assert found == Changes(removed=("b",))


def test_changed_model() -> None:
    assert changed(**local(b={"local_model_path": "c.gguf"})) == Changes(changed=("b",))
    assert changed(**workers(a={"n_ctx": 512})) == Changes(changed=("a",))
    cloud = {"provider": "P", "api_key": "k", "own": [2]}
    assert changed(ONLINE_LLM_MODEL={"cloud": cloud}) == Changes(changed=("cloud",))
    cloud = {"provider": "P", "api_key": "other", "own": [1]}
    assert changed(ONLINE_LLM_MODEL={"cloud": cloud}) == Changes(changed=("cloud",))
    assert changed(VLLM_MODEL_DICT={"v": "owner/w"}) == Changes(changed=("v",))


def test_kind_of_a_model_is_part_of_it() -> None:
    found = changed(VLLM_MODEL_DICT={"v": "owner/v", "a": "a.gguf"})
    assert found == Changes(changed=("a",))


def test_what_only_clients_read_changes_nothing() -> None:
    told = {"local_model_path": "a.gguf", "api_base_url": "http://x", "api_key": "y"}
    assert not changed(**local(a=told))


def test_default_changes_every_model_that_takes_it() -> None:
    found = changed(**workers(default={"port": 20002, "queue_size": 3}))
    assert set(found.changed) == {"a", "b", "cloud", "v"}
    found = changed(**workers(default={"port": 20500}))
    assert not found, "ports that are given out stay what they are"


def test_own_port_is_part_of_a_model() -> None:
    assert changed(**workers(a={"port": 20100})).changed == ("a",)


def test_replicas_alone_make_more_or_fewer() -> None:
    assert changed(**workers(a={"replicas": 3})) == Changes(scaled=("a",))
    assert changed(**workers(a={"replicas": 3, "n_ctx": 9})) == Changes(changed=("a",))
    cloud = {"provider": "P", "api_key": "k", "own": [1], "replicas": 2}
    assert changed(ONLINE_LLM_MODEL={"cloud": cloud}) == Changes(scaled=("cloud",))


def test_attached_servers() -> None:
    assert changed(**workers(near={"openai_server": SERVER})) == Changes(attached=("near",))
    key = {"openai_server": SERVER, "api_key": "k"}
    assert changed(**workers(far=key)) == Changes(attached=("far",))
    assert changed(FSCHAT_MODEL_WORKERS={"default": {"port": 20002}}) == Changes(attached=("far",))
    found = changed(**workers(a={"openai_server": SERVER}))
    assert found == Changes(removed=("a",), attached=("a",))


def test_when_a_model_is_loaded_concerns_no_process() -> None:
    assert changed(**workers(b={"keep_alive": 5})) == Changes(offered=("b",))
    assert changed(**workers(a={"keep_alive": 5})) == Changes(offered=("a",))
    assert changed(**workers(a={"gpu_memory": "1GiB"})) == Changes(offered=("a",))
    assert changed(**workers(b={"load_on_demand": False})) == Changes(offered=("b",))
    assert changed(**local(c={"local_model_path": "c.gguf"})) == Changes(offered=("c",))
    assert changed(**workers(cloud={"keep_alive": 5})) == Changes()


@pytest.mark.parametrize("model", [LocalModel, OnlineModel, WorkerSettings])
def test_every_option_of_a_model_counts(model: type[Section]) -> None:
    """Unless it is known not to: what a model is compared by is everything but a few keys."""
    told = {"api_base_url", "api_key"} if model is LocalModel else set()
    # By these the controller goes, not the worker.
    told |= {"load_on_demand", "keep_alive", "gpu_memory"} if model is WorkerSettings else set()
    skipped = {"replicas", "local_model_path", "openai_server", "provider"}
    for key, field in fields_of(model).items():
        if key in skipped:
            continue
        value = "1GiB" if key == "gpu_memory" else example(field.annotation, field.default)
        if model is LocalModel:
            found = changed(**local(a={"local_model_path": "a.gguf", key: value}))
        elif model is OnlineModel:
            cloud = {"provider": "P", "api_key": "k", "own": [1], key: value}
            found = changed(ONLINE_LLM_MODEL={"cloud": cloud})
        else:
            found = changed(**workers(a={key: value}))
        assert bool(found.changed) is (key not in told), key


def example(annotation: Any, default: Any) -> Any:
    """A value other than the default."""
    text = str(annotation)
    if "Literal" in text:
        return next(v for v in annotation.__args__ if v != default)
    if "dict" in text:
        return {"x": 1}
    if "list" in text:
        return ["x"]
    if "bool" in text:
        return not default
    if "int" in text or "float" in text:
        return (default or 0) + 3
    return "other"


names = st.sampled_from(["a", "b", "cloud", "v"])


@given(st.lists(names, unique=True), st.lists(names, unique=True))
def test_added_and_removed_lead_from_one_to_the_other(before: list[str], after: list[str]) -> None:
    online = {"cloud": {"version": "x"}}
    old = settings(LLM_MODEL="", LLM_MODELs=before, ONLINE_LLM_MODEL=online)
    new = settings(LLM_MODEL="", LLM_MODELs=after, ONLINE_LLM_MODEL=online)
    found = changes(old, new)
    assert (set(before) | set(found.added)) - set(found.removed) == set(after)
    assert not set(found.added) & set(found.removed)
    assert found == Changes(added=found.added, removed=found.removed)
