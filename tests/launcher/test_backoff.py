from dev_opsgpt.launcher.backoff import Backoff


def test_pauses_grow_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.pause(0.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_starts_over() -> None:
    backoff = Backoff()
    assert [backoff.pause(healthy) for healthy in (0, 59.9, 60, 0)] == [1, 2, 1, 2]
