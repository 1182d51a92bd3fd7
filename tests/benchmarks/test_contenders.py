"""What can be measured: that each is complete, and that what it installs is fixed and light."""

from pathlib import Path

import pytest

from benchmarks.contender import Target
from benchmarks.contenders import CONTENDERS, DIRECT, LITELLM, NGINX, OURS, RUST
from benchmarks.contenders.program import Program, clean_environ
from benchmarks.environment import REQUIREMENTS, Environment
from benchmarks.processes import StartFailed

FILES = sorted(REQUIREMENTS.glob("requirements-*.txt"))
HEAVY = {"torch", "transformers", "vllm", "sglang", "triton", "tensorflow"}


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_contenders_have_names_of_their_own() -> None:
    made = [make() for make in CONTENDERS.values()]
    assert {DIRECT, NGINX, LITELLM, OURS, *RUST} <= set(CONTENDERS)
    assert len({one.name for one in made}) == len(made)
    for one in made:
        assert not one.pids()
        one.stop()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_requirements_are_fixed_and_light(path: Path) -> None:
    pairs = [line.split("==") for line in lines(path)]
    assert all(len(pair) == 2 and pair[1] for pair in pairs)
    assert not HEAVY & {pair[0].lower() for pair in pairs}


@pytest.mark.parametrize("name", [*sorted(RUST), LITELLM])
def test_a_program_s_version_and_command(name: str, tmp_path: Path) -> None:
    contender = CONTENDERS[name]()
    assert isinstance(contender, Program)
    assert f"{contender.package}=={contender.version()}" in lines(
        REQUIREMENTS / f"requirements-{name}.txt"
    )
    upstream = Target("http://127.0.0.1:5/v1", "plain")
    words = " ".join(contender.command(upstream, tmp_path, 6))
    assert "6" in words
    assert "http://127.0.0.1:5" in words + "".join(file.read_text() for file in tmp_path.iterdir())


def test_fastchat_s_version_is_that_of_the_compatibility_tests() -> None:
    assert CONTENDERS["fastchat"]().version() == "0.2.36"


def test_our_modules_and_proxies_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    environ = clean_environ({"MORE": "x"})
    assert environ == {"PYTHONPATH": "", "HTTPS_PROXY": "", "MORE": "x"} | {
        name: "" for name in environ if name.lower().endswith("_proxy")
    }


@pytest.fixture
def venvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "venvs"
    monkeypatch.setattr("benchmarks.environment.VENVS", folder)
    return folder


def test_an_environment_is_made_once_and_anew_for_other_requirements(
    venvs: Path, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    environment = Environment("one", requirements)
    environment.ensure()
    python = Path(environment.program("python"))
    assert python.parent.parent.parent == venvs
    mark = venvs / "one" / "mark"
    mark.touch()
    environment.ensure()
    assert mark.exists()
    requirements.write_text("# nothing else\n")
    environment.ensure()
    assert python.exists()
    assert not mark.exists()


def test_what_cannot_be_installed_is_said(venvs: Path, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{tmp_path}/missing.whl\n")
    with pytest.raises(StartFailed, match=r"missing\.whl"):
        Environment("two", requirements).ensure()
    assert not (venvs / "two" / "made-of").exists()


def test_a_package_that_is_not_fixed() -> None:
    with pytest.raises(ValueError, match="does not fix"):
        Environment("smg").version("torch")
