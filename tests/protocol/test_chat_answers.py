import json

import pytest

from dev_opsgpt.protocol.chat_answers import ChatAnswer
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, ToolCallDelta, Usage

STEPS = [
    Delta("Hi"),
    Delta('"" \\ \n é 你'),
    Delta(),
    Delta(reasoning="hm"),
    Delta("b", logprobs=[TokenLogprob("b", -1.0, [98])]),
    Delta(tool_calls=[ToolCallDelta(0, "call_1", "add", "{}")]),
    Delta("c"),
    Delta(finish_reason="stop", usage=Usage(3, 2)),
]


@pytest.mark.parametrize("include_usage", [False, True])
def test_events_are_the_chunks(include_usage: bool) -> None:
    answers = [
        ChatAnswer("x", 1, 'm""odel', choices=2, logprobs=True, include_usage=include_usage)
        for _ in range(2)
    ]
    for step in STEPS:
        for index in (0, 1):
            told = [json.loads(data) for data in Decoder().feed(answers[0].events(index, step))]
            assert told == answers[1].chunks(index, step)
