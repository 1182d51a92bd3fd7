import io
import json
import shlex

import pytest

from dev_opsgpt.launcher.display import Closing, Display, Example, Row, Terminal, curl_line

CLOSING = Closing(
    rows=[
        Row("tiny-chat", "llama.cpp", "http://127.0.0.1:20002", "ready"),
        Row("example", "ExampleWorker", "http://127.0.0.1:21001", "failed: no key"),
    ],
    base_url="http://127.0.0.1:8888/v1",
    controller="http://127.0.0.1:20001",
    logs="/var/log/opsgpt",
    example=Example("tiny-chat"),
)


def shown(quiet: bool = False, terminal: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=terminal, highlight=False, width=200)
    return Display(console, quiet=quiet), out


def test_plain_lines() -> None:
    display, out = shown()
    display.waiting(["gateway"])
    display.done("controller  http://127.0.0.1:20001")
    display.note("tiny-chat stopped")
    display.trouble("big failed: " + "x" * 300, ["last words"])
    assert out.getvalue().splitlines() == [
        "✓ controller  http://127.0.0.1:20001",
        "· tiny-chat stopped",
        "✗ big failed: " + "x" * 300,
        "    last words",
    ]


def test_text_is_never_taken_for_markup() -> None:
    display, out = shown()
    display.done("[red]model[/red] :smile:")
    assert out.getvalue() == "✓ [red]model[/red] :smile:\n"


def test_quiet_shows_trouble_and_the_last_word() -> None:
    display, out = shown(quiet=True)
    display.waiting(["gateway"])
    display.done("controller")
    display.note("stopped")
    display.trouble("big failed")
    display.closing(CLOSING)
    assert out.getvalue().splitlines() == [
        "✗ big failed",
        "ready: http://127.0.0.1:8888/v1: tiny-chat (ready), example (failed: no key)",
    ]


def test_closing_table() -> None:
    display, out = shown()
    display.closing(CLOSING)
    lines = out.getvalue().splitlines()
    assert "OpenAI API   http://127.0.0.1:8888/v1" in lines
    assert "tiny-chat  llama.cpp      http://127.0.0.1:20002  ready" in lines
    assert "example    ExampleWorker  http://127.0.0.1:21001  failed: no key" in lines
    assert curl_line("http://127.0.0.1:8888/v1", Example("tiny-chat")) in lines


def test_closing_table_on_a_terminal() -> None:
    display, out = shown(terminal=True)
    display.waiting(["tiny-chat"])
    display.closing(CLOSING)
    assert "starting tiny-chat" in out.getvalue()
    assert "http://127.0.0.1:21001" in out.getvalue()


@pytest.mark.parametrize("model", ["tiny-chat", "it's", 'a "b" \\ c'])
def test_curl_line_survives_the_shell(model: str) -> None:
    words = shlex.split(curl_line("http://h/v1", Example(model), needs_key=True))
    assert json.loads(words[-1])["model"] == model
    assert "Authorization: Bearer $OPENAI_API_KEY" in words


def test_reader_that_has_gone_is_no_trouble() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    display = Display(Terminal(file=Gone()))
    display.done("controller")
    display.done("gateway")
