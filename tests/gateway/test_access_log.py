import io
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.access_log import AccessLog, as_json, as_text
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.transport.log_writer import LogWriter

PAIR = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)')


def record(**fields: Any) -> Record:
    found = {
        "request_id": "req-1",
        "at": 1_700_000_000.0,
        "path": "/v1/chat/completions",
        "model": "tiny",
        "served": "tiny",
        "replica": "http://127.0.0.1:20002",
        "key": "key-7",
        "client": "10.0.0.9",
        "stream": True,
        "status": 200,
        "prompt_tokens": 12,
        "completion_tokens": 0,
        "attempts": 1,
        "first_token": 0.0123456789,
        "duration": 1.5,
    }
    return Record(**(found | fields))


def pairs(line: str) -> dict[str, str]:
    head, _, rest = line.partition(" INFO access:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", head)
    found = {
        name: msgspec.json.decode(value) if value.startswith('"') else value
        for name, value in PAIR.findall(rest)
    }
    assert PAIR.sub("", rest) == ""
    return found


def test_a_line_of_text() -> None:
    assert as_text(record()) == (
        "2023-11-14T22:13:21.500Z INFO access: request_id=req-1 client=10.0.0.9 "
        "path=/v1/chat/completions status=200 model=tiny served=tiny "
        "replica=http://127.0.0.1:20002 key=key-7 stream=true attempts=1 prompt_tokens=12 "
        "completion_tokens=0 queued=0.0 first_token=0.012346 duration=1.5"
    )


def test_a_line_of_json() -> None:
    found = msgspec.json.decode(as_json(record(error="upstream_failed", status=502)))
    assert found["time"] == "2023-11-14T22:13:21.500Z"
    assert (found["level"], found["logger"]) == ("INFO", "access")
    assert (found["status"], found["error"]) == (502, "upstream_failed")
    assert found["first_token"] == 0.012346
    assert "owner" not in found


@given(st.text(max_size=60), st.text(max_size=60))
def test_clients_words_cannot_make_lines_or_fields(model: str, error: str) -> None:
    found = record(model=model, error=error, served="", replica="", key="")
    text = as_text(found)
    assert len(text.splitlines()) == 1
    assert len(as_json(found).split("\n")) == 1
    told = pairs(text)
    assert told.keys() <= set(Record.__struct_fields__)
    assert msgspec.json.decode(as_json(found)).get("model", "") == told.get("model", "")


@pytest.mark.parametrize("render", [as_text, as_json])
def test_a_key_in_the_wrong_place_is_masked(render: Any) -> None:
    secret = "sk-1234567890abcdef"
    for name in ("model", "request_id", "owner", "error"):
        assert "567890" not in render(record(**{name: secret}))


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_are_written_in_order_and_none_is_lost_at_the_end(form: Any) -> None:
    stream = io.StringIO()
    writer = LogWriter(stream)
    log = AccessLog(writer, form)
    for number in range(500):
        log.add(record(request_id=f"req-{number}"))
    writer.close()
    lines = stream.getvalue().splitlines()
    assert [re.search(r"req-(\d+)", line)[1] for line in lines] == [str(n) for n in range(500)]  # type: ignore[index]
