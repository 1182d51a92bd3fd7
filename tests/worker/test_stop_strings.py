from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.worker.engine import Delta, TokenLogprob
from dev_opsgpt.worker.stop_strings import StopFilter

PIECES = st.lists(st.text("ab", min_size=0, max_size=4), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


def _run(pieces: list[str], stops: list[str]) -> tuple[str, str, bool]:
    stopping = StopFilter(stops)
    deltas = []
    for piece in pieces:
        entry = TokenLogprob(piece, -1.0, list(piece.encode()))
        deltas.append(stopping.feed(Delta(content=piece, logprobs=[entry])))
        if stopping.stopped:
            break
    else:
        deltas.append(stopping.flush())
    text = "".join(delta.content for delta in deltas)
    tokens = "".join(entry.token for delta in deltas for entry in delta.logprobs)
    return text, tokens, stopping.stopped


@given(PIECES, STOPS)
def test_the_cut_does_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    text, tokens, stopped = _run(pieces, stops)
    assert tokens == text
    assert whole.startswith(text)
    assert stopped == any(stop in whole for stop in stops)
    assert not any(stop in text for stop in stops)
    assert (text, tokens, stopped) == _run(list(whole), stops)
    if not stopped:
        assert text == whole


def test_nothing_is_held_back_without_need() -> None:
    stopping = StopFilter(["###"])
    assert stopping.feed(Delta(content="hello")).content == "hello"
    assert stopping.feed(Delta(content=" #")).content == " "
    assert stopping.feed(Delta(content="#1")).content == "##1"
    reasoning = Delta(reasoning="###")
    assert stopping.feed(reasoning) == reasoning
