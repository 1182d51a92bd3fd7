"""Classes found by their registration, and what one that cannot be imported does to the others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dev_opsgpt
from dev_opsgpt.config.models import WorkerSettings
from dev_opsgpt.service import model_workers
from dev_opsgpt.service.model_workers.base import ApiChatParams, ApiModelWorker
from dev_opsgpt.service.model_workers.engine import ProviderEngine
from dev_opsgpt.service.model_workers.loader import (
    DEFAULT_PROVIDER,
    make_engine,
    make_worker,
    provider_class,
    provider_names,
)
from dev_opsgpt.service.model_workers.openai import ExampleWorker, OpenAIWorker
from dev_opsgpt.service.model_workers.openai_engine import OpenAIEngine
from dev_opsgpt.worker.engine import Abilities, EngineError

from .vendors import Settings

PACKAGE = "dev_opsgpt/service/model_workers"

# As the seed prints it, with the imports that it leaves out.
SEEDS_CLASS = """\
from typing import Dict, List

from dev_opsgpt.service.model_workers.base import ApiModelWorker, ApiChatParams, ApiEmbeddingsParams


class XXWorker(ApiModelWorker):
    def __init__(
            self,
            *,
            controller_addr: str = None,
            worker_addr: str = None,
            model_names: List[str] = ["gpt-3.5-turbo"],
            version: str = "gpt-3.5",
            **kwargs,
    ):
        kwargs.update(model_names=model_names, controller_addr=controller_addr, worker_addr=worker_addr)
        kwargs.setdefault("context_len", 16384) #TODO
        super().__init__(**kwargs)
        self.version = version

    def do_chat(self, params: ApiChatParams) -> Dict:
        return {"error_code": 500, "text": f"{self.model_names[0]} has no chat yet"}
"""  # noqa: E501

REPORT = """
import asyncio, json
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.service.model_workers.loader import make_engine, provider_names, provider_class
from tests_settings import Settings

found = {"names": provider_names()}
entry = {"provider": "XXWorker", "version": "gpt-4", "api_key": "k"}
engine = make_engine("mine", entry, Settings())
worker = engine.worker
found["made"] = [worker.model_names, worker.version, worker.context_len, worker.worker_addr]

async def chat():
    await engine.start()
    messages = [{"role": "user", "content": "hi"}]
    request = ChatRequest.model_validate({"model": "mine", "messages": messages})
    try:
        async for _ in engine.chat(request): pass
    except Exception as error:
        found["chat"] = [error.status, error.message]
    await engine.stop()

asyncio.run(chat())
for name in ("YYWorker", "ZZWorker"):
    try:
        provider_class(name)
    except Exception as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_the_seeds_class_and_two_that_cannot_be_imported(tmp_path: Path) -> None:
    root = Path(dev_opsgpt.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root, tmp_path / "dev_opsgpt", ignore=ignored)
    package = tmp_path / PACKAGE
    (package / "xx.py").write_text(SEEDS_CLASS, encoding="utf-8")
    (package / "yy.py").write_text("import surely_not_installed.deep\n", encoding="utf-8")
    (package / "zz.py").write_text("raise OSError('no such library')\n", encoding="utf-8")
    with (package / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("from .xx import XXWorker\n")
        file.write('with optional("YYWorker", missing):\n    from .yy import YYWorker\n')
        file.write('with optional("ZZWorker", missing):\n    from .zz import ZZWorker\n')
    (tmp_path / "tests_settings.py").write_text(
        "class Settings:\n    model_names, limit_worker_concurrency = None, 5\n"
        "    no_register, n_ctx, default_params = False, None, {}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["names"] == ["ExampleWorker", "OpenAIWorker", "XXWorker"]
    assert found["made"] == [["mine"], "gpt-4", 16384, None]
    assert found["chat"] == [502, "mine has no chat yet"]
    assert "pip install surely_not_installed" in found["YYWorker"]
    assert "no such library" in found["ZZWorker"]


def test_the_registered_classes() -> None:
    assert {"ExampleWorker", DEFAULT_PROVIDER} <= set(provider_names())
    assert provider_class("ExampleWorker") is ExampleWorker
    assert "ApiModelWorker" not in provider_names()


@pytest.mark.parametrize(
    ("name", "told"),
    [("ExampelWorker", "did you mean ExampleWorker?"), ("Nothing", "there are ExampleWorker")],
)
def test_an_unknown_class(name: str, told: str) -> None:
    with pytest.raises(EngineError, match=told):
        provider_class(name)


def test_other_names_of_the_package_are_no_providers() -> None:
    for name in ("optional", "missing", "__doc__"):
        with pytest.raises(EngineError):
            provider_class(name)


def test_an_entry_without_a_provider_is_openais() -> None:
    entry = {"model_name": "gpt-x", "api_base_url": "http://h/v1/", "api_key": " k \n", "port": 9}
    engine = make_engine("openai-api", entry, WorkerSettings())
    assert isinstance(engine, OpenAIEngine)
    worker = engine.worker
    assert isinstance(worker, OpenAIWorker)
    assert (worker.version, worker.api_base_url, worker.api_key) == ("gpt-x", "http://h/v1", "k")
    assert worker.model_names == ["openai-api"]
    assert worker.config == entry


def register(monkeypatch: pytest.MonkeyPatch, cls: type[ApiModelWorker]) -> None:
    monkeypatch.setattr(model_workers, cls.__name__, cls, raising=False)


def test_what_a_constructor_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(ApiModelWorker):
        def __init__(self, model_names: list[str], own_key: str = "none") -> None:
            super().__init__(model_names)
            self.own_key = own_key

        def do_chat(self, params: ApiChatParams) -> Any:
            return {"error_code": 0, "text": ""}

    register(monkeypatch, Narrow)
    entry = {"provider": "Narrow", "own_key": "mine", "version": "v", "timeout": 3}
    made = make_worker("m", entry, Settings(model_names=["a", "b"], n_ctx=5))
    assert isinstance(made, Narrow)
    assert (made.model_names, made.own_key, made.timeout) == (["a", "b"], "mine", 3.0)
    assert made.context_len == 2048


def test_context_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    class Open(ApiModelWorker):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    register(monkeypatch, Open)
    settings = Settings(n_ctx=5, no_register=True)
    addresses = {"controller_addr": "http://c", "worker_addr": "http://w"}
    engine = make_engine("m", {"provider": "Open", "odd": 1}, settings, **addresses)
    made = engine.worker
    assert type(engine) is ProviderEngine
    assert engine.context_length == 5
    assert (made.controller_addr, made.worker_addr, made.no_register) == ("http://c", "http://w", 1)


def test_a_class_can_do_what_it_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing(ApiModelWorker):
        supports = frozenset({"tools", "content_parts"})

        def __init__(self, **kwargs: Any) -> None:
            kwargs.setdefault("context_len", 32000)
            super().__init__(**kwargs)

    class Plain(ApiModelWorker):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.context_len = None  # type: ignore[assignment]

    register(monkeypatch, Seeing)
    register(monkeypatch, Plain)
    seeing = make_engine("m", {"provider": "Seeing"}, Settings())
    assert seeing.abilities == Abilities(
        context_length=32000, tools=True, vision=True, json_output=False
    )
    told = make_engine("m", {"provider": "Seeing"}, Settings(n_ctx=100))
    assert told.abilities.context_length == 100
    plain = make_engine("m", {"provider": "Plain"}, Settings())
    assert plain.abilities == Abilities(tools=False, vision=False, json_output=False)


def test_what_is_behind_a_relay_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(ExampleWorker):
        def do_chat(self, params: ApiChatParams) -> Any:
            return {"error_code": 0, "text": ""}

    register(monkeypatch, Own)
    assert make_engine("m", {"provider": "ExampleWorker"}, Settings()).abilities == Abilities()
    told = make_engine("m", {"provider": "ExampleWorker"}, Settings(n_ctx=100))
    assert told.abilities == Abilities(context_length=100)
    own = make_engine("m", {"provider": "Own"}, Settings())
    assert own.abilities == Abilities(
        context_length=16384, tools=False, vision=False, json_output=False
    )


def test_a_constructor_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(ApiModelWorker):
        def __init__(self, model_names: list[str], api_key: str) -> None:
            raise ValueError(f"cannot split {api_key}")

    register(monkeypatch, Failing)
    with pytest.raises(
        EngineError, match=r"Failing for the model 'm' .*cannot split \*\*\*"
    ) as got:
        make_engine("m", {"provider": "Failing", "api_key": "secret-of-failing"}, Settings())
    assert "secret-of-failing" not in str(got.value)
