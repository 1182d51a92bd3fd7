"""The parts of the benchmark on real replicas that only calculate."""

from benchmarks.prefix_cache import TURNS, Figures, Measured, _figures, make_load, table


def test_the_same_seed_gives_the_same_chats() -> None:
    load = make_load(40, 5, 3, 0.5, 7)
    assert load == make_load(40, 5, 3, 0.5, 7)
    assert load != make_load(40, 5, 3, 0.5, 8)
    assert len(set(load.systems)) == 5
    assert {len(chat.questions) for chat in load.chats} == {TURNS}
    uses = [sum(chat.system == n for chat in load.chats) for n in range(5)]
    assert uses[0] > uses[4]


def test_figures() -> None:
    found = [Measured(0.2, 100, 0), Measured(0.1, 100, 90), Measured(0.4, 200, 110)]
    figures = _figures(found, 2.0)
    assert figures == Figures(3, 0.5, 200.0, 400.0, 200.0, 2.0)
    assert "| prefix_cache |        3 |  50.0% |    200 |    400 |" in table(
        {"prefix_cache": figures}
    )
