from typing import Any

from dev_opsgpt.config.models import OnlineModel, WorkerSettings
from dev_opsgpt.config.schema import (
    as_model,
    bare,
    field_at,
    fields_of,
    is_optional,
    is_text,
    type_at,
)
from dev_opsgpt.config.settings import Settings


def test_types_by_key_path() -> None:
    assert type_at(Settings, ()) is Settings
    assert as_model(type_at(Settings, ("FSCHAT_MODEL_WORKERS", "any"))) is WorkerSettings
    assert bare(type_at(Settings, ("FSCHAT_MODEL_WORKERS", "any", "port"))) is int
    assert is_optional(type_at(Settings, ("FSCHAT_MODEL_WORKERS", "any", "port")))
    assert is_text(type_at(Settings, ("FSCHAT_OPENAI_API", "api_keys", 0)))
    assert is_text(type_at(Settings, ("CLUSTER_SECRET",)))
    assert type_at(Settings, ("LLM_MODELs", 0)) is str
    assert type_at(Settings, ("nothing", "here")) is Any


def test_fields_have_the_files_keys() -> None:
    assert "LLM_MODELs" in fields_of(Settings)
    assert "APISecret" in fields_of(OnlineModel)
    assert fields_of(int) == {}


def test_field_at() -> None:
    field = field_at(Settings, ("FSCHAT_CONTROLLER", "port"))
    assert field is not None
    assert field.default == 20001
    assert field_at(Settings, ()) is None
    assert field_at(Settings, ("llm_model_dict", "tiny-chat")) is None
