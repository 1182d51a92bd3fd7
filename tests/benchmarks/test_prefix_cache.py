"""The parts of the benchmark on real replicas that only calculate."""

from benchmarks.prefix_cache import (
    TURNS,
    Figures,
    Measured,
    _figures,
    compared,
    make_load,
    table,
)


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
        {"prefix_cache": [figures]}
    )


def test_several_seeds() -> None:
    def run(hit_rate: float, p50: float) -> Figures:
        return Figures(100, hit_rate, p50, 1000.0, 200.0, 40.0)

    figures = {
        "shortest_queue": [run(0.6, 400), run(0.5, 200), run(0.7, 300)],
        "prefix_cache": [run(0.8, 100), run(0.9, 200), run(0.7, 60)],
    }
    told = table(figures)
    assert "60.0% (50.0% to 70.0%)" in told
    assert "| 300 (200 to 400) |" in told
    assert "|  100 (60 to 200) |  1,000 |" in told
    ratios = compared(figures)
    assert "against shortest_queue" in ratios
    assert "0.50 (0.20 to 1.00)" in ratios
    assert "0.25 (0.20 to 1.00)" in ratios
