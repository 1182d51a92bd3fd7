"""``opsgpt keys`` against a running service, by its secret alone; and what is typed wrong."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dev_opsgpt.cli import admin
from dev_opsgpt.cli.app import app
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.launcher import runfile
from tests.launcher.slow_model import serve_slow_model
from tests.launcher.stack import Place, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of one online model, so that it is there soon."""
    with serve_slow_model() as slow:
        place = Place(
            tmp_path_factory.mktemp("keys"),
            online={"slow": slow},
            LLM_MODEL="slow",
            LLM_MODELs=["slow"],
            FSCHAT_OPENAI_API={"api_keys": ["sk-of-the-configuration"]},
        )
        with place.start() as service:
            yield service.ready()


@pytest.fixture
def idle(tmp_path: Path) -> Place:
    """A configuration whose service does not run."""
    return Place(tmp_path)


def run(place: Place, *words: str) -> Any:
    """The command, within this process: it is quicker, and ``test_cli.py`` does it the long way."""
    return CliRunner().invoke(app, ["keys", *words], env=place.environ)


def opsgpt(service: Service, *words: str) -> Any:
    done = run(service.place, *words)
    assert done.exit_code == 0, done.exception
    return done


def shown(service: Service, *words: str) -> Any:
    return json.loads(opsgpt(service, *words, "--json").stdout)


def failed(place: Place, *words: str) -> str:
    """The one line that ``main`` says of a command that failed."""
    done = run(place, *words)
    assert isinstance(done.exception, CliError), done.exception
    assert done.stdout == ""
    (line,) = str(done.exception).splitlines()
    return line


def ask(service: Service, key: str, model: str = "slow") -> httpx.Response:
    return httpx.post(
        f"{service.place.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {key}"},
        timeout=30,
        trust_env=False,
    )


def test_a_key_is_made_used_changed_rotated_and_revoked(service: Service) -> None:
    made = opsgpt(service, "create", "--name", "bot", "--owner", "me", "--rpm", "2")
    key = made.stdout.strip()
    assert key.startswith("sk-ops-")
    assert "not shown again" in made.stderr
    assert key not in made.stderr
    answer = ask(service, key)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert ask(service, key).status_code == 200
    refused = ask(service, key)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"

    (row,) = shown(service, "list", "--owner", "me")
    assert (row["name"], row["used"]["requests"], row["rpm"]) == ("bot", 2, 2)
    changed = shown(service, "update", "bot", "--rpm", "none", "--model", "other")
    assert (changed["rpm"], changed["models"]) == (None, ["other"])
    assert ask(service, key).status_code == 403
    changed = shown(service, "update", row["id"], "--all-models")
    assert ask(service, key).status_code == 200

    new = opsgpt(service, "rotate", "bot", "--grace", "1h").stdout.strip()
    assert [ask(service, one).status_code for one in (key, new)] == [200, 200]
    assert opsgpt(service, "revoke", "bot").stdout == f"{row['id']} is revoked.\n"
    assert [ask(service, one).status_code for one in (key, new)] == [401, 401]
    assert row["id"] not in opsgpt(service, "list", "--all").stdout.split("\n")[0]
    (ended,) = shown(service, "list", "--owner", "me", "--all")
    assert not ended["active"]
    for path in service.place.logs.rglob("*"):
        if path.is_file():
            assert key[11:] not in path.read_text(errors="replace")


def test_tables_for_people(service: Service) -> None:
    words = ("--tpm", "5000", "--concurrent", "3", "--budget", "2.5", "--budget-period", "month")
    row = shown(service, "create", "--name", "table", *words, "--expires", "30d", "--priority", "5")
    listed = opsgpt(service, "list").stdout.splitlines()
    assert listed[0].split()[:3] == ["id", "key", "name"]
    (line,) = [line for line in listed if row["id"] in line]
    assert f"{row['prefix']}..." in line
    for cell in ("0/5000", "0/3", "0/2.5 a month", "until "):
        assert cell in line
    text = opsgpt(service, "show", "table").stdout
    for part in (row["id"], "tokens a minute", "0/5000", "expires_at", "priority"):
        assert part in text
    assert row["key"] not in text + line
    assert row["expires_at"] == pytest.approx(time.time() + 30 * 86400, abs=60)


def test_what_the_gateway_refuses_is_one_line(service: Service) -> None:
    place = service.place
    assert "'rpm'" in failed(place, "create", "--rpm", "0")
    assert "'budget_period'" in failed(place, "create", "--budget-period", "week")
    assert "future" in failed(place, "create", "--expires", "2001-01-01")
    assert "no key" in failed(place, "show", "key_0123456789abcdef")
    assert "called 'nobody'" in failed(place, "revoke", "nobody")
    line = failed(place, "list", "--admin-key", "sk-wrong")
    assert "--admin-key" in line
    assert "sk-wrong" not in line


def test_names_that_two_keys_have(service: Service) -> None:
    for _ in range(2):
        opsgpt(service, "create", "--name", "twin")
    assert "2 keys" in failed(service.place, "show", "twin")


def test_what_is_typed_wrong(idle: Place) -> None:
    for words, part in (
        (("create", "--rpm", "many"), "--rpm: 'many'"),
        (("create", "--budget", "x"), "--budget: 'x'"),
        (("create", "--expires", "soon"), "--expires: 'soon'"),
        (("rotate", "x", "--grace", "1y"), "--grace: '1y'"),
        (("update", "x"), "nothing to change"),
        (("update", "x", "--model", "a", "--all-models"), "contradict"),
        (("list",), "Nobody answers"),
    ):
        assert part in failed(idle, *words)


def test_times() -> None:
    def at(text: str) -> float | None:
        plain: dict[str, Any] = dict.fromkeys(("models", "rpm", "tpm", "concurrent", "budget"))
        found: float | None = admin.terms(expires=text, **plain)["expires_at"]
        return found

    assert at("never") is None
    assert at("2030-12-31") == datetime(2030, 12, 31, tzinfo=UTC).timestamp()
    assert at("2030-12-31T12:00+02:00") == datetime(2030, 12, 31, 10, tzinfo=UTC).timestamp()
    assert at("90s") == pytest.approx(time.time() + 90, abs=5)
    assert admin.seconds("--grace", "2w") == 14 * 86400


def test_whose_credential_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = "sha256:" + "0" * 64
    place = Place(tmp_path, FSCHAT_OPENAI_API={"port": 9, "admin_keys": [hashed]})
    for name in ("OPSGPT_CONFIG_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, place.environ[name])
    monkeypatch.delenv("OPSGPT_SECRET", raising=False)
    configured = ("http://127.0.0.1:9", None)
    assert admin.gateway(None, None, None) == configured
    assert admin.gateway(None, "http://other:1/v1/", "typed") == ("http://other:1", "typed")
    running = runfile.Running(1, "http://127.0.0.1:1", "http://127.0.0.1:8", "the secret")
    with runfile.hold(runfile.run_file(place.folder), running):
        assert admin.gateway(None, None, None) == ("http://127.0.0.1:8", "the secret")
        assert admin.gateway(None, "http://127.0.0.1:8/v1", None)[1] == "the secret"
        # The secret is for nobody else.
        assert admin.gateway(None, "http://other:1", None) == ("http://other:1", None)
        monkeypatch.setenv("OPSGPT__FSCHAT_OPENAI_API__ADMIN_KEYS", f'["{hashed}", "sk-plain"]')
        assert admin.gateway(None, None, None) == ("http://127.0.0.1:8", "sk-plain")
    with pytest.raises(CliError, match="nowhere"):
        admin.gateway(tmp_path / "nowhere", None, None)
