from dev_opsgpt.engines.llama_cpp_pace import Pace, joined
from dev_opsgpt.worker.engine import Delta, TokenLogprob, ToolCallDelta, Usage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_fast_model_is_read_once_a_while() -> None:
    clock = Clock()
    pace = Pace(0.01, clock)
    assert pace.wait() == 0  # the first piece
    clock.now += 0.004
    assert round(pace.wait(), 6) == 0.006
    clock.now += 0.006  # waited
    assert round(pace.wait(), 6) == 0.01
    clock.now += 0.016  # waited, and nothing more came for a while
    assert pace.wait() == 0


def test_a_slow_one_is_never_held_back() -> None:
    clock = Clock()
    pace = Pace(0.01, clock)
    for _ in range(5):
        clock.now += 0.0051
        assert pace.wait() == 0


def test_texts_that_follow_each_other_are_joined() -> None:
    one, two = TokenLogprob("a", -1.0, [97]), TokenLogprob("b", -2.0, [98])
    call = Delta(tool_calls=[ToolCallDelta(0, "id", "f")])
    given = [Delta("a", logprobs=[one]), Delta("b", logprobs=[two]), call, Delta("c"), Delta("d")]
    given += [Delta(reasoning="e"), Delta(finish_reason="stop", usage=Usage(1, 1))]
    assert joined(given) == [
        Delta("ab", logprobs=[one, two]),
        call,
        Delta("cd"),
        Delta(reasoning="e"),
        Delta(finish_reason="stop", usage=Usage(1, 1)),
    ]
    assert joined([]) == []
    assert joined([Delta("a")]) == [Delta("a")]
