"""OpenAI's stream, as servers and vendors send it, read into deltas."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev_opsgpt.protocol import errors
from dev_opsgpt.worker.engine import Delta, TokenLogprob, Usage
from dev_opsgpt.worker.openai_errors import answer_error
from dev_opsgpt.worker.openai_stream import LEAST_LOGPROB, StreamReader, read_stream


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunk(delta: Any = None, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **choice}]}


def _read(*chunks: Any, done: bool = True) -> list[Delta]:
    reader = StreamReader()
    data = b"".join(map(_event, chunks)) + (b"data: [DONE]\n\n" if done else b"")
    found = [delta for at in range(len(data)) for delta in reader.feed(data[at : at + 1])]
    return [*found, reader.end()]


def test_a_chat() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    details = {
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    found = _read(
        _chunk({"role": "assistant", "content": None}),
        _chunk({"reasoning_content": "hm"}),
        _chunk({"content": "好"}),
        _chunk(finish="stop"),
        {"choices": [], "usage": {**usage, **details}},
    )
    assert found == [
        Delta(reasoning="hm"),
        Delta(content="好"),
        Delta(finish_reason="stop", usage=Usage(3, 2, 1, 1)),
    ]


def test_what_vendors_do() -> None:
    azure = {"choices": [], "prompt_filter_results": []}
    found = _read(
        azure,
        {"choices": [{"delta": {"content": "a", "reasoning": None}}], "usage": None},
        _chunk({"content": "other"}, index=1),
        _chunk({"content": "b"}, "length"),
        done=False,
    )
    assert [delta.content for delta in found] == ["a", "b", ""]
    assert found[-1] == Delta(finish_reason="length")
    cached = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}
    last = _read({**_chunk({"content": "x"}, "sensitive"), "usage": cached})[-1]
    assert last == Delta(finish_reason="content_filter", usage=Usage(9, 1, 8))
    assert _read(_chunk({"content": "x"}))[-1].finish_reason == "stop"
    assert _read(_chunk({"content": "x"}, "eos"))[-1].finish_reason == "stop"


def test_completions_and_their_logprobs() -> None:
    entry = {
        "token": "A",
        "bytes": [65],
        "logprob": None,
        "top_logprobs": [{"token": "B", "bytes": None, "logprob": -0.5}],
    }
    found = _read(
        {"choices": [{"index": 0, "text": "A", "logprobs": {"content": [entry]}}]},
        {
            "choices": [
                {
                    "text": "c",
                    "logprobs": {
                        "tokens": ["c"],
                        "token_logprobs": [-1],
                        "top_logprobs": [{"d": -2, "c": -1}],
                    },
                }
            ]
        },
        {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]},
    )
    top = TokenLogprob("B", -0.5, [66])
    assert found[0] == Delta("A", logprobs=[TokenLogprob("A", LEAST_LOGPROB, [65], [top])])
    tops = [TokenLogprob("c", -1, [99]), TokenLogprob("d", -2, [100])]
    assert found[1] == Delta("c", logprobs=[TokenLogprob("c", -1, [99], tops)])


def test_tool_calls() -> None:
    def calls(*pieces: Any) -> dict[str, Any]:
        return _chunk({"tool_calls": list(pieces)})

    found = _read(
        calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}),
        calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}),
        calls({"index": 0, "function": {"arguments": ":1}"}}),
        calls({"index": 1, "function": {"name": "g"}}),
        _chunk(finish="tool_calls"),
    )
    pieces = [call for delta in found for call in delta.tool_calls]
    assert [(p.index, p.name, p.arguments) for p in pieces] == [
        (0, "f", ""),
        (0, None, '{"x"'),
        (0, None, ":1}"),
        (1, "g", ""),
    ]
    assert pieces[0].id == "a"
    assert (pieces[3].id or "").startswith("call_")
    unnumbered = _read(
        calls({"id": "a", "function": {"name": "f", "arguments": "{"}}),
        calls({"function": {"arguments": "}"}}),
        calls({"id": "b", "function": {"name": "g", "arguments": "{}"}}),
    )
    pieces = [call for delta in unnumbered for call in delta.tool_calls]
    assert [(p.index, p.id) for p in pieces] == [(0, "a"), (0, None), (1, "b")]
    assert unnumbered[-1].finish_reason == "tool_calls"
    older = _read(_chunk({"function_call": {"name": "f", "arguments": "{}"}}, "function_call"))
    assert older[0].tool_calls[0].name == "f"
    assert older[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_breaks_off(done: bool) -> None:
    with pytest.raises(errors.UpstreamFailed):
        _read(*([] if done else [_chunk({"content": "x"})]), done=done)


@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        ({"error": {"message": "boom", "code": 500}}, errors.UpstreamFailed, "boom"),
        ({"error": "boom"}, errors.UpstreamFailed, "boom"),
        ({"error": {"message": None}}, errors.UpstreamFailed, "failed"),
        ({"text": "no memory", "error_code": 50002}, errors.UpstreamFailed, "no memory"),
        ({"object": "error", "message": "bad", "code": 40001}, errors.UpstreamFailed, "bad"),
        (
            {"error": {"message": "long", "type": "exceed_context_size_error", "code": 400}},
            errors.ContextLengthExceeded,
            "long",
        ),
        ({"error": {"message": "slow down", "code": 429}}, errors.RateLimited, "slow down"),
        ([], errors.UpstreamFailed, "JSON object"),
    ],
)
def test_errors_in_mid_stream(event: Any, kind: type[errors.ApiError], words: str) -> None:
    with pytest.raises(kind, match=words):
        _read(_chunk({"content": "x"}), event)
    with pytest.raises(errors.UpstreamFailed):
        list(StreamReader().feed(b"data: {broken\n\n"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.UpstreamFailed),
        (403, errors.UpstreamFailed),
        (404, errors.ModelNotFound),
        (413, errors.RequestTooLarge),
        (429, errors.RateLimited),
        (500, errors.UpstreamFailed),
        (503, errors.Unavailable),
        (504, errors.UpstreamTimeout),
    ],
)
def test_answers_that_are_errors(status: int, kind: type[errors.ApiError]) -> None:
    body = {"error": {"message": "m", "param": "p", "code": "c", "type": "invalid_request_error"}}
    found = answer_error(status, json.dumps(body).encode(), retry_after=3)
    assert type(found) is kind
    assert (found.message, found.param, found.retry_after) == ("m", "p", 3)
    for nonsense in (b"<html>", b"[]", b"", b"\xff"):
        assert type(answer_error(status, nonsense)) is kind


async def test_read_stream() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield _event(_chunk({"content": "a"}))
        yield _event(_chunk(finish="stop"))

    found = [delta async for delta in read_stream(body())]
    assert found == [Delta("a"), Delta(finish_reason="stop")]
    running = StreamReader()
    timings = {"cache_n": 2, "prompt_n": 3, "predicted_n": 1}
    list(running.feed(_event({**_chunk({"content": "x"}), "timings": timings})))
    assert running.usage == Usage(5, 1, 2)
