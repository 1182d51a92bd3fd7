"""Frames as FastChat's gateway demands them, and that they keep coming."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest

from dev_opsgpt.protocol.fastchat import GenerateRequest
from dev_opsgpt.worker.engine import Delta, TokenLogprob, ToolCallDelta, Usage
from dev_opsgpt.worker.fastchat_frames import Frame, SoFar, keep_coming


def so_far(*deltas: Delta, **fields: object) -> SoFar:
    found = SoFar(GenerateRequest(**{"prompt": "p", "echo": False} | fields))  # type: ignore[arg-type]
    for delta in deltas:
        found.add(delta)
    return found


def test_the_first_frame_is_complete() -> None:
    assert so_far().frame() == {
        "text": "",
        "error_code": 0,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "finish_reason": None,
        "logprobs": None,
    }


def test_the_last_frame_counts() -> None:
    last = Delta(finish_reason="length", usage=Usage(2, 3, cached_tokens=1))
    frame = so_far(Delta(content="a"), Delta(content="b"), last).frame("length")
    assert (frame["text"], frame["finish_reason"]) == ("ab", "length")
    assert frame["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "stop")],
)
def test_finish_reasons_are_those_that_fastchat_knows(ours: str, theirs: str) -> None:
    assert so_far().frame(ours)["finish_reason"] == theirs


@pytest.mark.parametrize("echo", [None, True])
def test_the_prompt_is_echoed_unless_told_not_to(echo: bool | None) -> None:
    assert so_far(Delta(content="!"), echo=echo).frame()["text"] == "p!"


def test_reasoning_and_tool_calls_are_text() -> None:
    deltas = [
        Delta(reasoning="hm"),
        Delta(reasoning="m"),
        Delta(content="so"),
        Delta(tool_calls=[ToolCallDelta(0, "call_1", "add", '{"a"')]),
        Delta(tool_calls=[ToolCallDelta(0, arguments=": 1}")]),
        Delta(finish_reason="tool_calls"),
    ]
    answer = so_far()
    texts = []
    for delta in deltas:
        answer.add(delta)
        texts.append(answer.frame()["text"])
    assert all(after.startswith(before) for before, after in pairwise(texts))
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
    assert texts[-1] == f"<think>hmm</think>so{call}"
    assert deltas[3].tool_calls[0].arguments == '{"a"'


def test_logprobs_are_parallel_lists() -> None:
    entry = TokenLogprob("ab", -0.5, [97, 98], [TokenLogprob("ab", -0.5, [97, 98])])
    steps = [Delta(content="ab", logprobs=[entry]), Delta(content="ab", logprobs=[entry])]
    assert so_far(*steps, logprobs=1).frame()["logprobs"] == {
        "tokens": ["ab", "ab"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"ab": -0.5}, {"ab": -0.5}],
        "text_offset": [0, 2],
    }


async def slow(closed: asyncio.Event) -> AsyncGenerator[Frame, None]:
    try:
        yield {"text": "a"}
        await asyncio.sleep(0.2)
        yield {"text": "ab"}
    finally:
        closed.set()


async def test_a_silent_answer_repeats_its_last_frame() -> None:
    closed = asyncio.Event()
    texts = [f["text"] async for f in keep_coming(slow(closed), {"text": ""}, 0.05)]
    assert texts[0] == "a"
    assert texts[-1] == "ab"
    assert texts.count("a") > 1
    assert closed.is_set()


async def test_who_stops_reading_stops_the_answer() -> None:
    closed = asyncio.Event()
    frames = keep_coming(slow(closed), {"text": ""}, 5)
    assert await anext(frames) == {"text": "a"}
    await frames.aclose()
    assert closed.is_set()
