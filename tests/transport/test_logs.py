"""A process's log as it is set up for all of them, in real processes."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from dev_opsgpt.transport.log_writer import MOST_WAITING, LogWriter

ROOT = Path(__file__).parents[2]
SETUP = """
import logging, threading, warnings
from dev_opsgpt.transport.logs import install
from dev_opsgpt.transport.request_id import current
install("INFO", {form!r})
log = logging.getLogger("some.part")
"""


def logged(form: str, script: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SETUP.format(form=form) + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def objects(script: str) -> list[dict[str, str]]:
    return [msgspec.json.decode(line) for line in logged("json", script)[1]]


def test_text() -> None:
    script = (
        "log.info('hello %s', 'you')\n"
        "log.debug('too much')\n"
        "current.set('req-7')\n"
        "log.warning('Bearer %s', 'abcdefghij')\n"
    )
    code, lines = logged("text", script)
    assert code == 0
    first, second = lines
    assert first.endswith(" INFO some.part: hello you")
    assert second.endswith(" WARNING some.part: Bearer *** [req-7]")


def test_json() -> None:
    script = (
        "log.info('a \"quoted\" line\\n%s', {'api_key': 'abcdefghij'})\n"
        "current.set('req-7')\n"
        "log.warning('late')\n"
    )
    first, second = objects(script)
    assert first["message"] == "a \"quoted\" line\n{'api_key': '***'}"
    assert (first["level"], first["logger"]) == ("INFO", "some.part")
    assert first["time"].endswith("Z")
    assert "request_id" not in first
    assert second["request_id"] == "req-7"


def test_what_is_no_text_is_written_all_the_same() -> None:
    script = "import os; log.info('no such file: %s', os.fsdecode(b'caf\\xe9'))\n"
    (line,) = objects(script)
    assert line["message"] == "no such file: caf\\udce9"
    assert logged("text", script)[1][0].endswith("no such file: caf\\udce9")


def test_tracebacks_are_masked_too() -> None:
    script = (
        "try:\n"
        "    raise ValueError('http://me:hunter2hunter2@example.com')\n"
        "except ValueError:\n"
        "    log.exception('it failed')\n"
    )
    for form in ("text", "json"):
        _, lines = logged(form, script)
        text = "\n".join(lines)
        assert "it failed" in text
        assert "ValueError: http://***@example.com" in text
        assert "Traceback" in text
        assert "hunter2" not in text.replace(script, "")


def test_what_ends_a_thread_or_the_process_is_logged() -> None:
    script = (
        "warnings.warn('old sk-abcdefghijk')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='t1')\n"
        "thread.start(); thread.join()\n"
        "raise RuntimeError('sk-abcdefghijk')\n"
    )
    warned, thread, ended = objects(script)
    assert "old sk-***" in warned["message"]
    assert thread["message"] == "the thread t1 ended"
    assert "ZeroDivisionError" in thread["exception"]
    assert ended["level"] == "CRITICAL"
    assert ended["exception"].endswith("RuntimeError: sk-***")


def test_shutdown_writes_out_what_waits() -> None:
    script = (
        "import os\n"
        "for number in range(2000): log.info('line %d', number)\n"
        "logging.shutdown(); os._exit(3)\n"
    )
    code, lines = logged("text", script)
    assert code == 3
    assert [line.rpartition(" ")[2] for line in lines] == [str(n) for n in range(2000)]


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.held = threading.Event()

    def write(self, text: str) -> int:
        self.held.set()
        self.free.wait(20)
        return super().write(text)


def test_a_stuck_stream_holds_nobody_up_and_fills_no_memory() -> None:
    stream = Stuck()
    writer = LogWriter(stream)
    writer.write("first")
    assert stream.held.wait(20)
    for number in range(MOST_WAITING + 5):
        writer.write(str(number))
    stream.free.set()
    writer.close()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["first", "0"]
    assert lines[-1] == "5 log lines were lost: nobody took them in time"
    assert len(lines) == MOST_WAITING + 2


def test_a_line_that_cannot_be_made_costs_itself_only() -> None:
    stream = io.StringIO()
    writer = LogWriter(stream)
    writer.write_later(lambda value: 1 // value, 0)  # type: ignore[arg-type, return-value]
    writer.write("next")
    writer.close()
    assert stream.getvalue() == "a log line could not be made: ZeroDivisionError\nnext\n"


def test_a_stream_that_is_gone_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    writer = LogWriter(stream)
    writer.write("into the void")
    writer.close()
