import pytest
from pydantic import SecretStr, ValidationError

from dev_opsgpt.config.models import LocalModel, OnlineModel, WorkerSettings


def test_entries_are_fixed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LocalModel(local_model_path="a.gguf").engine = "llama_cpp"


def test_seed_entry_of_local_model() -> None:
    entry = LocalModel.model_validate(
        {"local_model_path": "THUDM/chatglm-6b", "api_base_url": "http://h/v1", "api_key": "EMPTY"}
    )
    assert entry.engine == "auto"
    assert entry.model_type == "LLM"
    assert entry.api_key.get_secret_value() == "EMPTY"


def test_online_model_keeps_and_guards_the_providers_own_keys() -> None:
    written = {
        "version": "generalv3",
        "APPID": "7",
        "APISecret": "hidden-1",
        "api_key": "hidden-2",
        "access_token": "hidden-3",
        "headers": {"Authorization": "hidden-4"},
        "provider": "XingHuoWorker",
    }
    entry = OnlineModel.model_validate(written)
    assert "hidden" not in repr(entry)
    assert entry.plain() == written
    assert entry.api_secret == SecretStr("hidden-1")
    assert entry.upstream_model == "generalv3"


def test_model_name_goes_before_version() -> None:
    entry = OnlineModel.model_validate({"model_name": "a", "version": "b"})
    assert entry.upstream_model == "a"


def test_openai_server_is_a_url() -> None:
    assert WorkerSettings(openai_server="http://10.0.0.5:8000/v1").openai_server
    with pytest.raises(ValidationError):
        WorkerSettings(openai_server="10.0.0.5:8000")


def test_defaults_of_a_worker() -> None:
    worker = WorkerSettings()
    assert (worker.limit_worker_concurrency, worker.queue_size, worker.queue_timeout) == (5, 64, 60)
    assert (worker.n_ctx, worker.n_gpu_layers, worker.replicas) == (None, -1, 1)
