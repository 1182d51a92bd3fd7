"""The same answers in FastChat's dialect, as one of its workers would give them:
``python -m benchmarks.fastchat_mock plain|burst|paced PORT``. A stream's frames end with NUL and
hold the whole text so far."""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import uvloop

from benchmarks.contender import MODEL, Kind
from benchmarks.mock import SHAPES, USAGE, Answer, json_answer, serve, stream, words
from benchmarks.upstream import text

STATUS = {"model_names": [MODEL], "speed": 1, "queue_length": 0}
# FastChat's style 4: messages one after another, nothing in between.
CONVERSATION = {
    "name": MODEL,
    "system_template": "{system_message}",
    "system_message": "",
    "roles": ["USER: ", "ASSISTANT: "],
    "messages": [],
    "offset": 0,
    "sep_style": 4,
    "sep": "\n",
    "sep2": None,
    "stop_str": None,
    "stop_token_ids": None,
}


def frames(count: int) -> list[bytes]:
    """The frames of a stream: one for each word, and the whole text again with the reason."""
    found, so_far = [], ""
    for word in words(count):
        so_far += word
        found.append(_frame(so_far, None))
    return [*found, _frame(so_far, "stop")]


def _frame(content: str, finish: str | None) -> bytes:
    return msgspec.json.encode(_output(content, finish)) + b"\0"


def _output(content: str, finish: str | None) -> dict[str, Any]:
    return {"text": content, "error_code": 0, "usage": USAGE, "finish_reason": finish}


def answers(kind: Kind) -> Mapping[bytes, Answer]:
    """What FastChat's gateway and controller ask a worker for."""
    documents: dict[bytes, Any] = {
        b"/model_details": {"context_length": 8192},
        b"/count_token": {"count": 11, "error_code": 0},
        b"/worker_get_conv_template": {"conv": CONVERSATION},
        b"/worker_generate": _output(text(), "stop"),
    }
    found: dict[bytes, Answer] = {
        path: json_answer(msgspec.json.encode(value)) for path, value in documents.items()
    }
    if kind in SHAPES:
        shape = SHAPES[kind]
        found[b"/worker_generate_stream"] = stream(frames(shape.events), shape.pace)
    return found


def main(kind: Kind, port: int) -> None:
    """Those answers, and the worker's status for anything else."""
    status = json_answer(msgspec.json.encode(STATUS))
    uvloop.run(serve(answers(kind), status, port))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]
