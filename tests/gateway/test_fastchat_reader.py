"""Frames as they come from FastChat's workers, read as steps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.fastchat_reader import FrameReader, error_of
from dev_opsgpt.protocol.errors import Unsupported, UpstreamFailed
from dev_opsgpt.protocol.fastchat import Frame
from dev_opsgpt.protocol.steps import Usage

NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0)


def read(*frames: Frame, logprobs: bool = False) -> list[Any]:
    reader = FrameReader(logprobs=logprobs)
    found = [delta for frame in frames if (delta := reader.add(frame)) is not None]
    return [*found, reader.end(reader.usage or NO_USAGE)]


def test_the_text_so_far_becomes_steps() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    steps = read(
        Frame(""), Frame("a"), Frame("a"), Frame("ab", usage=usage, finish_reason="length")
    )
    assert [step.content for step in steps] == ["a", "b", ""]
    assert steps[-1].finish_reason == "length"
    assert steps[-1].usage == Usage(prompt_tokens=3, completion_tokens=2)


def test_half_a_character_is_held_back() -> None:
    steps = read(Frame("a\ufffd"), Frame("a\ufffd\ufffd"), Frame("a中b"))
    assert [step.content for step in steps] == ["a", "中b", ""]


def test_a_broken_character_at_the_end_is_kept() -> None:
    assert "".join(step.content for step in read(Frame("a\ufffd"))) == "a\ufffd"


@given(st.text(st.sampled_from("ab中\ufffd")), st.data())
def test_however_it_is_cut_the_text_is_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    steps = read(*(Frame(text[:cut]) for cut in [*cuts, len(text)]))
    assert "".join(step.content for step in steps) == text


@pytest.mark.parametrize(("theirs", "ours"), [(None, "stop"), ("abort", "stop")])
def test_finish_reasons_become_openais(theirs: str | None, ours: str) -> None:
    assert read(Frame("a", finish_reason=theirs))[-1].finish_reason == ours


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 1}, {"completion_tokens": None}])
def test_usage_that_is_not_there(usage: dict[str, Any] | None) -> None:
    reader = FrameReader()
    reader.add(Frame("a", usage=usage))
    assert reader.usage is None


def test_no_frame_at_all_is_a_failure() -> None:
    with pytest.raises(UpstreamFailed):
        read()


def test_log_probabilities_are_the_new_ones_only() -> None:
    first = {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [{}], "text_offset": [0]}
    both = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [{}, {"c": -2.0, "b": -0.5}],
    }
    steps = read(Frame("a", logprobs=first), Frame("ab", logprobs=both), logprobs=True)
    assert [[e.token for e in step.logprobs] for step in steps] == [["a"], ["b"], []]
    assert steps[0].logprobs[0].logprob == -9999.0
    assert [top.token for top in steps[1].logprobs[0].top] == ["b", "c"]


def test_log_probabilities_that_do_not_come_are_missed_before_anything_is_sent() -> None:
    reader = FrameReader(logprobs=True)
    assert reader.add(Frame("")) is None
    with pytest.raises(Unsupported) as caught:
        reader.add(Frame("a"))
    assert caught.value.param == "logprobs"
    with pytest.raises(UpstreamFailed):
        FrameReader(logprobs=True).add(Frame("a", logprobs={"tokens": 1}))


@pytest.mark.parametrize(("code", "status"), [(40303, 400), (42903, 429), (50005, 503), (1, 502)])
def test_errors_keep_their_meaning(code: int, status: int) -> None:
    error = error_of(Frame("why", code))
    assert (error.status, error.message) == (status, "why")
    with pytest.raises(type(error)):
        FrameReader().add(Frame("why", code))
    assert error_of(Frame("", code)).message
