"""The shape of the code, held by its own imports: who may know whom, and what nobody does."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dev_opsgpt"
GROUND = {"protocol", "config", "transport"}
# Package -> what it may import besides itself. The two wings are routing/controller/gateway and
# worker/engines/service.model_workers; they never meet below the launcher.
ARROWS: dict[str, set[str]] = {
    "protocol": set(),
    "config": set(),
    "transport": {"protocol"},
    "routing": set(),
    "controller": {"protocol", "transport", "routing"},
    "storage": {"protocol"},
    "gateway": {"protocol", "transport", "routing", "storage"},
    "worker": {"protocol", "transport"},
    "engines": {"protocol", "transport", "worker"},
    "service.model_workers": {"protocol", "config", "transport", "worker"},
    "launcher": {
        *GROUND,
        *{"routing", "controller", "gateway", "worker", "engines", "service.model_workers"},
        "storage",
    },
    "service.llm_api": {"launcher", "config"},
    "cli": {"launcher", "config", "protocol", "routing", "controller"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(dotted: str) -> str:
    """The part of the package that a module belongs to."""
    steps = dotted.split(".")[1:]
    return ".".join(steps[:2]) if steps[:1] == ["service"] else ".".join(steps[:1])


def dotted(path: Path) -> str:
    steps = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(steps[:-1] if steps[-1] == "__init__" else steps)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            if node.module in ("dev_opsgpt", "dev_opsgpt.service"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_imports_point_one_way(path: Path) -> None:
    own = part(dotted(path))
    if own not in ARROWS:
        return
    for name in imports(path):
        if name.startswith("dev_opsgpt.") and (other := part(name)) in ARROWS:
            assert other == own or other in ARROWS[own], f"{own} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_what_nobody_does(path: Path) -> None:
    printing = part(dotted(path)) in ("cli", "launcher")
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "a bare except"
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), "a star import"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not printing:
            assert node.func.id != "print", "print belongs to the command line"


@pytest.mark.parametrize(
    "module",
    [
        "dev_opsgpt.config",
        "dev_opsgpt.gateway.runtime",
        "dev_opsgpt.controller.app",
        "dev_opsgpt.service.model_workers",
        "dev_opsgpt.worker.runtime",
        "configs.model_config",
        "configs.server_config",
    ],
)
def test_nothing_heavy_is_imported(module: str) -> None:
    script = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'transformers', 'xllamacpp', 'numpy', 'openai', 'PIL'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
