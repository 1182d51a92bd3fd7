from pathlib import Path

import pytest

from dev_opsgpt.config import WorkerSettings
from dev_opsgpt.launcher.threads import cores_here, own_share, share_cores, thread_environment


def worker(threads: int | None = None, replicas: int = 1) -> WorkerSettings:
    return WorkerSettings(n_threads=threads, replicas=replicas)


@pytest.mark.parametrize(
    ("engines", "cores", "shares"),
    [
        ({"a": worker()}, 8, {"a": 8}),
        ({"a": worker(), "b": worker()}, 8, {"a": 4, "b": 4}),
        ({"a": worker(), "b": worker(), "c": worker()}, 8, {"a": 2, "b": 2, "c": 2}),
        ({"a": worker(replicas=3), "b": worker()}, 8, {"a": 2, "b": 2}),
        ({"a": worker(6), "b": worker()}, 8, {"a": 6, "b": 2}),
        ({"a": worker(3, replicas=2), "b": worker(), "c": worker()}, 8, {"a": 3, "b": 1, "c": 1}),
        ({"a": worker(16), "b": worker()}, 8, {"a": 16, "b": 1}),
        ({"a": worker(), "b": worker()}, 1, {"a": 1, "b": 1}),
        ({"a": worker(5)}, 2, {"a": 5}),
        ({}, 8, {}),
    ],
)
def test_shares(engines: dict[str, WorkerSettings], cores: int, shares: dict[str, int]) -> None:
    assert share_cores(engines, cores) == shares


def test_cores_of_a_control_group(tmp_path: Path) -> None:
    whole = cores_here(tmp_path)
    assert whole >= 1
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    assert cores_here(tmp_path) == whole
    (group / "cpu.max").write_text("50000 100000\n")
    assert cores_here(tmp_path) == 1
    (group / "cpu.max").write_text("150000 100000\n")
    assert cores_here(tmp_path) == min(2, whole)


def test_an_engine_reads_what_the_launcher_set() -> None:
    assert own_share(thread_environment(3)) == 3
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3"
    assert own_share({}) is None
    assert own_share({"OPSGPT_ENGINE_THREADS": "many"}) is None
