import pytest

from dev_opsgpt.config.problems import ConfigError, Problem, nearest, spell


@pytest.mark.parametrize(
    ("path", "spelt"),
    [
        ((), "the whole file"),
        (("LLM_MODEL",), "LLM_MODEL"),
        (("LLM_MODELs", 1), "LLM_MODELs[1]"),
        (
            ("FSCHAT_MODEL_WORKERS", "tiny-chat", "port"),
            'FSCHAT_MODEL_WORKERS["tiny-chat"]["port"]',
        ),
    ],
)
def test_spell(path: tuple[str | int, ...], spelt: str) -> None:
    assert spell(path) == spelt


def test_nearest_is_blind_to_case() -> None:
    assert nearest("LLM_MODELS", ["LLM_MODEL", "LLM_MODELs"]) == "LLM_MODELs"
    assert nearest("PROT", ["host", "port"]) == "port"
    assert nearest("zzz", ["host", "port"]) is None


def test_error_keeps_every_problem() -> None:
    first = Problem("error", "a.py", "A", "found 1", "Write 2")
    second = Problem("error", "b.py", "B", "found 3", "Write 4")
    error = ConfigError([first, second])
    assert error.problems == (first, second)
    assert str(error) == "a.py: A: found 1. Write 2\nb.py: B: found 3. Write 4"
