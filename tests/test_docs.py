"""The pages are true: names in them are in the code, links lead somewhere, examples are valid."""

import ast
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest
from typer.main import get_command

from dev_opsgpt.cli.app import app
from dev_opsgpt.config import Settings, load_settings
from dev_opsgpt.config.environment import VARIABLES
from dev_opsgpt.service.model_workers.base import ApiChatParams, ApiModelWorker

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dev_opsgpt"
READMES = [ROOT / "README.md", ROOT / "README_zh.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What the pages tell users to make, and what running the project makes.
MADE_BY_USERS = {
    "configs/local_config.json",
    "local_config.json",
    "dev_opsgpt/service/model_workers/xx.py",
    "my-model.gguf",
    "config.json",
    "quantize_config.json",
    ".cache/",
    "logs/",
}
FILE = re.compile(r"\w\.(py|md|toml|txt|json|gguf|lua)$")
TREES = ("dev_opsgpt/", "tests/", "docs/", "configs/", "examples/", "benchmarks/")
NAMED = re.compile(r"(?P<path>\.?\w[\w.@-]*(?:/[\w.@-]+)*/?)(?::(?P<name>[A-Za-z_][\w.]*))?")
METHOD = re.compile(r"(?P<class>[A-Z][a-z]\w*)\.(?P<name>[a-z_]\w*)(?:\(.*\))?")
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
VARIABLE = re.compile(r"\b((?:OPSGPT_|MODEL_|MMPROJ_|LLM_)\w+)=(\S+)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(page))]


def blocks(page: Path, kind: str) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(page.read_text()) if found["kind"] == kind]


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Every function, class, method and assigned name, methods and fields as ``Class.name``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + t.id for t in targets if isinstance(t, ast.Name))


@cache
def classes() -> Mapping[str, set[str]]:
    """The package's classes and what each defines."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for name in definitions(ast.parse(file.read_text())):
            owner, _, member = name.partition(".")
            found.setdefault(owner, set()).add(member)
    return found


def find(path: str, page: Path) -> Path | None:
    """The file or folder a page means: from the root, the package, or the page's own folder; a
    bare file name means any file of that name."""
    for base in (ROOT, PACKAGE, page.parent):
        if (base / path).exists():
            return base / path
    if "/" in path:
        return None
    trees = (ROOT / tree for tree in TREES)
    return next((found for tree in trees for found in tree.rglob(path)), None)


@each_page
def test_named_files_and_functions_exist(page: Path) -> None:
    for text in inline_code(page):
        named = NAMED.fullmatch(text)
        if named is None or named["path"] in MADE_BY_USERS:
            continue
        path, name = named["path"], named["name"]
        if not (FILE.search(path) or path.endswith("/") or path.startswith(TREES)):
            continue
        found = find(path, page)
        assert found is not None, f"{page.name} names {path}, which does not exist"
        if name is not None and found.suffix == ".py":
            known = set(definitions(ast.parse(found.read_text())))
            assert name in known, f"{page.name} names {name}, which {path} does not have"


@each_page
def test_named_methods_exist(page: Path) -> None:
    known = classes()
    for text in inline_code(page):
        named = METHOD.fullmatch(text)
        if named is not None and named["class"] in known:
            methods = known[named["class"]]
            assert named["name"] in methods, f"{page.name} names {text}, which is gone"


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for found in LINK.finditer(prose(page)):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{page.name} links to {target}#{anchor}"


@each_page
def test_examples_are_valid(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")
    for text in blocks(page, "json"):
        json.loads(text)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    for name in ("model_config.py", "server_config.py"):
        shutil.copy(ROOT / "configs" / name, tmp_path)
    return tmp_path


@each_page
def test_configuration_examples_can_be_loaded(page: Path, config_dir: Path) -> None:
    for text in blocks(page, "python"):
        target = re.match(r"# configs/(\w+\.py)\n", text)
        if target is not None:
            file = config_dir / target[1]
            before = file.read_text()
            file.write_text(before + "\n" + text)
            load_settings(config_dir, {})
            file.write_text(before)
    for text in blocks(page, "json") if page in READMES else ():
        (config_dir / "local_config.json").write_text(text)
        load_settings(config_dir, {})
        (config_dir / "local_config.json").unlink()


@each_page
def test_variables_of_commands_are_read(page: Path, config_dir: Path) -> None:
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            environ = dict(VARIABLE.findall(line))
            for name in environ:
                assert name in VARIABLES or name.startswith("OPSGPT__"), f"{page.name}: {name}"
            load_settings(config_dir, environ)


@pytest.mark.parametrize("page", [*READMES, ROOT / "docs" / "security.md"], ids=lambda p: p.name)
def test_named_keys_are_in_the_schema(page: Path) -> None:
    keys = {field.alias for field in Settings.model_fields.values()}
    for text in inline_code(page):
        name = text.partition("=")[0]
        if re.fullmatch(r"[A-Z]+(_[A-Z]+)+s?", name) and name != "OPENAI_API_KEY":
            assert name in keys | VARIABLES.keys(), f"{page.name} names the key {name}"


@each_page
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shell = "\n".join(blocks(page, "sh"))
    for command in [*shell.splitlines(), *inline_code(page)]:
        for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", command.partition("#")[0]):
            if command.lstrip().startswith("make") or "=" in command:
                assert target in targets, f"{page.name}: make {target}"
        opsgpt = re.search(r"(?:^|[|\s/])opsgpt((?: [\w.-]+)*)", command.partition("#")[0])
        if opsgpt is not None:
            check_command(opsgpt[1].split(), page)


def check_command(words: list[str], page: Path) -> None:
    found: click.Command = get_command(app)
    for word in words:
        if hasattr(found, "commands") and not word.startswith("-"):
            assert word in found.commands, f"{page.name}: opsgpt has no command {word}"
            found = found.commands[word]
        elif word.startswith("-"):
            options = [option for param in found.params for option in param.opts]
            assert word in [*options, "--help"], f"{page.name}: {found.name} has no {word}"


def test_both_readmes_have_the_same_examples() -> None:
    english, chinese = ([m[0] for m in BLOCK.finditer(page.read_text())] for page in READMES)
    assert english == chinese


def test_the_readmes_provider_works() -> None:
    source = next(text for text in blocks(READMES[0], "python") if "class XXWorker" in text)
    made: dict[str, type[ApiModelWorker]] = {}
    exec(source, made)
    messages = [{"role": "user", "content": "Are you there?"}]
    params = ApiChatParams(messages=messages, version="xx-large")
    texts = [item["text"] for item in made["XXWorker"](model_names=["xx"]).do_chat(params)]
    assert texts[-1].strip() == "xx-large heard: Are you there?"
    assert all(new.startswith(old) for old, new in pairwise(texts))
