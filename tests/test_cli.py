"""The ``opsgpt`` command: alone, and against a running service."""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.cli.chat import Chat, converse, pick_model, write_safely
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.cli.workers import _cells
from tests.launcher.slow_model import serve_slow_model
from tests.launcher.stack import ROOT, Place, Service, until

KEY = "sk-for-the-tests"
CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from dev_opsgpt.cli import main; main()"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve_slow_model() as slow:
        place = Place(
            tmp_path_factory.mktemp("cli"),
            online={"slow": slow},
            FSCHAT_OPENAI_API={"api_keys": [KEY]},
        )
        place.environ["OPENAI_API_KEY"] = KEY
        with place.start() as service:
            yield service.ready()


@pytest.fixture
def idle(tmp_path: Path) -> Place:
    """A configuration whose service does not run."""
    return Place(tmp_path)


def failed(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a command that failed."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_help_names_every_command(idle: Place) -> None:
    said = idle.opsgpt("--help").stdout
    for command in ("start", "models", "workers", "chat", "release", "config"):
        assert command in said


def test_help_imports_nothing_heavy(idle: Place) -> None:
    heavy = ("fastapi", "httpx", "pydantic", "uvicorn", "xllamacpp")
    code = f"{CODE.rpartition(';')[0]}; print([m for m in {heavy} if m in sys.modules])"
    assert idle.command("-c", code).stdout == "[]\n"


def test_models(service: Service) -> None:
    assert service.place.opsgpt("models").stdout == "slow\ntiny-chat\n"


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_models_of_a_url(service: Service, suffix: str) -> None:
    url = service.place.base_url.removesuffix("/v1") + suffix
    assert service.place.opsgpt("models", "--url", url).stdout == "slow\ntiny-chat\n"


def test_workers(service: Service) -> None:
    header, *rows = service.place.opsgpt("workers").stdout.splitlines()
    columns = ["address", "models", "kind", "running", "waiting", "state", "context", "can"]
    assert header.split() == columns
    address = f"http://127.0.0.1:{service.place.worker}"
    cells = [address, "tiny-chat", "opsgpt", "0/5", "0", "ready", "1024", "tools,json"]
    assert cells in [row.split() for row in rows]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, ("?", "tools?,vision?,json?")),
        ({"context_length": 8, "tools": False, "vision": False, "json_output": False}, ("8", "-")),
        ({"context_length": None, "tools": None, "vision": True}, ("?", "tools?,vision,json?")),
    ],
)
def test_what_a_worker_can_do(told: dict[str, Any], shown: tuple[str, str]) -> None:
    row = {"address": "a", "models": ["m"], "kind": "openai", "running": 0, "limit": 5}
    assert _cells({**row, "waiting": 0, "draining": False, **told})[-2:] == shown


def test_chat_from_a_pipe(service: Service) -> None:
    done = service.place.opsgpt("chat", stdin="Hello! What is your name?")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 1


def test_chat_with_an_unknown_model(service: Service) -> None:
    assert "nobody" in failed(service.place.opsgpt("chat", "-m", "nobody", stdin="Hello"))


def test_release_stops_and_starts(service: Service) -> None:
    done = service.place.opsgpt("release", "tiny-chat", "--new", "tiny-chat")
    assert done.returncode == 0, done.stderr
    assert "'tiny-chat' stopped" in done.stdout
    assert service.models()["tiny-chat"] != f"http://127.0.0.1:{service.place.worker}"


def test_release_of_an_unknown_model(service: Service) -> None:
    assert "nobody" in failed(service.place.opsgpt("release", "nobody"))
    assert "--new" in failed(service.place.opsgpt("release", "tiny-chat", "--keep"))


def test_nobody_answers(idle: Place) -> None:
    for command in ("models", "workers", "chat"):
        line = failed(idle.opsgpt(command, stdin="Hello"))
        assert "Nobody answers at http://127.0.0.1:" in line
        assert "python start.py" in line


def test_bad_url_is_refused(idle: Place) -> None:
    assert "not a URL" in failed(idle.opsgpt("models", "--url", "localhost:8888"))


def test_config_check(idle: Place) -> None:
    done = idle.opsgpt("config", "check")
    assert done.returncode == 0
    assert str(idle.folder) in done.stdout


def test_config_check_names_key_and_mend(tmp_path: Path) -> None:
    place = Place(tmp_path, LLM_MODELs=["tiny-chet"])
    line = failed(place.opsgpt("config", "check"))
    assert line.startswith("error: ")
    assert "LLM_MODELs" in line
    assert 'Did you mean "tiny-chat"?' in line


def test_config_show_masks_secrets(tmp_path: Path) -> None:
    place = Place(tmp_path, FSCHAT_OPENAI_API={"port": 9999, "api_keys": ["sk-hidden"]})
    shown = json.loads(place.opsgpt("config", "show").stdout)
    assert shown["FSCHAT_OPENAI_API"]["port"] == 9999
    assert shown["FSCHAT_OPENAI_API"]["api_keys"] == ["***"]


def test_missing_configuration_is_one_line(idle: Place) -> None:
    assert "nowhere" in failed(idle.opsgpt("models", "--config", str(idle.folder / "nowhere")))


def test_wrong_key_is_told_with_the_mend(service: Service) -> None:
    line = failed(service.place.opsgpt("models", "--key", "sk-wrong"))
    assert "refused the credentials" in line
    assert "--key" in line
    assert "sk-wrong" not in line


def test_wrong_secret_is_told_with_the_mend(service: Service, idle: Place) -> None:
    controller = f"http://127.0.0.1:{service.place.controller}"
    assert "OPSGPT_SECRET" in failed(idle.opsgpt("workers", "--controller", controller))


class Terminal:
    """``opsgpt chat`` on a terminal of its own."""

    def __init__(self, place: Place, *words: str) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-c", CODE, "chat", *words], place.environ)
        self.said = ""
        self.at = 0

    def expect(self, text: str) -> None:
        """Reads until it has said something that it had not said before."""

        def heard() -> bool:
            if select.select([self.end], [], [], 0.1)[0]:
                self.said += os.read(self.end, 4096).decode(errors="replace")
            return text in self.said[self.at :]

        until(heard, text)
        self.at = self.said.index(text, self.at) + len(text)

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def close(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.end)
        return os.waitstatus_to_exitcode(status)


def test_chat_on_a_terminal(service: Service) -> None:
    terminal = Terminal(service.place, "-m", "slow")
    terminal.expect("> ")
    terminal.type("Hello\n")
    terminal.expect("w9")
    terminal.expect("> ")
    terminal.type("/reset\n")
    terminal.expect("> ")
    terminal.type("/exit\n")
    assert terminal.close() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(service: Service) -> None:
    terminal = Terminal(service.place, "-m", "slow")
    terminal.expect("> ")
    terminal.type("Hello\n")
    terminal.expect("w1")
    terminal.type("\x03")
    terminal.expect("[stopped]")
    terminal.expect("> ")
    assert "w9" not in terminal.said
    terminal.type("\x03")
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.close() == 0


class Scripted(Api):
    """A gateway whose streams are written down."""

    def __init__(self, *streams: bytes) -> None:
        super().__init__("http://127.0.0.1:1/v1", None, "")
        self.streams = list(streams)
        self.asked: list[list[dict[str, str]]] = []

    def stream(self, path: str, body: Any) -> Generator[bytes, None, None]:
        self.asked.append([dict(message) for message in body["messages"]])
        yield self.streams.pop(0)

    def models(self) -> list[str]:
        return ["a", "b"]


def said(text: str) -> bytes:
    chunk = {"choices": [{"delta": {"content": text}}]}
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()


def test_history_is_kept_and_reset() -> None:
    out: list[str] = []
    api = Scripted(said("Hi."), said("Fine."), said("Hi again."))
    chat = Chat(api, "a", "Be brief.", out.append)
    chat.ask("Hello")
    chat.ask("How are you?")
    system = {"role": "system", "content": "Be brief."}
    assert api.asked[1] == [
        system,
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]
    chat.reset()
    chat.ask("Hello")
    assert api.asked[2] == [system, {"role": "user", "content": "Hello"}]
    assert "".join(out) == "Hi.\nFine.\nHi again.\n"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b'data: {"error": {"message": "out of luck"}}\n\n', "out of luck"),
        (said("half").removesuffix(b"data: [DONE]\n\n"), "broke off"),
        (b"data: {broken\n\n", "OpenAI's form"),
    ],
)
def test_answer_that_breaks_off_is_no_part_of_the_history(stream: bytes, reason: str) -> None:
    chat = Chat(Scripted(stream), "a", None, lambda _: None)
    with pytest.raises(CliError, match=reason):
        chat.ask("Hello")
    assert chat.messages == []


def test_conversation_goes_on_after_an_error() -> None:
    lines = iter(["/help", "", "Hello", "/exit"])
    told: list[str] = []
    chat = Chat(Scripted(b"data: {broken\n\n"), "a", None, lambda _: None)
    converse(chat, lambda: next(lines), told.append)
    assert told[-1] == "The answer is not in OpenAI's form."


def test_model_to_talk_to() -> None:
    assert pick_model(Scripted(), "z", "b") == "z"
    assert pick_model(Scripted(), None, "b") == "b"
    assert pick_model(Scripted(), None, "c") == "a"


def test_words_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_safely("a\x1b[2Jb\n\tü\x07")
    assert capsys.readouterr().out == "a[2Jb\n\tü"
