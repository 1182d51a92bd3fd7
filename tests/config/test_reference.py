from collections.abc import Iterator

from pydantic import BaseModel

from dev_opsgpt.config.models import LocalModel, OnlineModel, WorkerSettings
from dev_opsgpt.config.reference import PAGE, render
from dev_opsgpt.config.schema import fields_of
from dev_opsgpt.config.servers import ControllerSettings, GatewaySettings
from dev_opsgpt.config.settings import Settings

_MODELS: tuple[type[BaseModel], ...] = (
    Settings,
    LocalModel,
    OnlineModel,
    WorkerSettings,
    ControllerSettings,
    GatewaySettings,
)


def test_the_page_is_what_the_code_gives() -> None:
    advice = "run python -m dev_opsgpt.config.reference"
    assert PAGE.read_text(encoding="utf-8") == render(), advice


def _keys() -> Iterator[tuple[str, str]]:
    for model in _MODELS:
        for key, field in fields_of(model).items():
            yield key, " ".join((field.description or "").split())


def test_every_key_has_a_meaning_and_a_row() -> None:
    page = render()
    for key, meaning in _keys():
        assert meaning, f"{key} has no description"
        assert f"| `{key}` |" in page
        assert meaning.replace("|", "\\|") in page


def test_rows_are_whole() -> None:
    tables = [line for line in render().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3, 6}
