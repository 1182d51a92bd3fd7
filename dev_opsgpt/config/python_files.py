"""model_config.py and server_config.py as layers of configuration.

They are run, because they are Python: a value may be computed. A value that a higher layer
overrides is in place already while they run, so what is computed from it is right as well: with
OPSGPT__DEFAULT_BIND_HOST=0.0.0.0, `"host": DEFAULT_BIND_HOST` is 0.0.0.0.
"""

import builtins
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from dev_opsgpt.config.origin import Layer
from dev_opsgpt.config.problems import ConfigError, Problem

PYTHON_FILES = ("model_config", "server_config")
_PACKAGE = "configs"


class PythonFiles:
    """Runs the Python files of one folder, each at most once, without touching sys.modules.

    They may import each other as `configs.model_config`, `.model_config` or `model_config`,
    wherever the folder lies. `overrides` are top-level values that go before what a file assigns.
    """

    def __init__(self, folder: Path, overrides: Mapping[str, Any]) -> None:
        """Prepare to run files of `folder`; nothing is read yet."""
        self._folder = folder
        self._overrides = overrides
        self._modules: dict[str, ModuleType] = {}

    def run(self, stem: str) -> ModuleType:
        """Give the module made from `<stem>.py`. Raises ConfigError when the file fails."""
        if stem in self._modules:
            return self._modules[stem]
        path = self._folder / f"{stem}.py"
        module = self._modules[stem] = ModuleType(f"{_PACKAGE}.{stem}")
        namespace = _Namespace(self._overrides)
        namespace |= {
            "__name__": module.__name__,
            "__package__": _PACKAGE,
            "__file__": str(path),
            "__builtins__": vars(builtins) | {"__import__": self._import},
        }
        try:
            exec(_compile(path), namespace)  # noqa: S102 - the user's own configuration is code
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError([_failure(path, error)]) from None
        finally:
            vars(module).update(namespace)
        return module

    def has(self, stem: str) -> bool:
        """Tell whether the folder holds `<stem>.py`."""
        return (self._folder / f"{stem}.py").is_file()

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for `__import__` while a file runs: modules of the folder come from `run`."""
        from_configs = bool(globals and globals.get("__package__") == _PACKAGE)
        if from_configs and (level == 1 or name.split(".")[0] == _PACKAGE):
            stem = name if level == 1 else name.partition(".")[2]
            package = ModuleType(_PACKAGE)
            for sibling in (stem,) if stem else fromlist or ():
                if not self.has(sibling):
                    raise ImportError(f"there is no {sibling}.py in {self._folder}")
                setattr(package, sibling, self.run(sibling))
            return self.run(stem) if stem and (fromlist or level) else package
        if from_configs and level == 0 and name in PYTHON_FILES and self.has(name):
            return self.run(name)
        return builtins.__import__(name, globals, locals, fromlist or (), level)


class _Namespace(dict[str, Any]):
    """The globals of a running file: an overridden name keeps its value whatever is assigned."""

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        super().__init__()
        self._overrides = overrides

    def __setitem__(self, key: str, value: Any) -> None:
        overridden = key in self._overrides
        super().__setitem__(key, deepcopy(self._overrides[key]) if overridden else value)


def read_python(folder: Path, overrides: Mapping[str, Any]) -> list[Layer]:
    """Run the Python files there are in `folder`; one layer each, of all their public plain data.

    A name that server_config.py merely imported from model_config.py counts as the latter's.
    Raises ConfigError when a file fails.
    """
    files = PythonFiles(folder, overrides)
    layers: list[Layer] = []
    seen: dict[str, Any] = {}
    for stem in PYTHON_FILES:
        if files.has(stem):
            values = {
                name: value
                for name, value in vars(files.run(stem)).items()
                if _is_data(name, value) and seen.get(name, ...) is not value
            }
            seen |= values
            layers.append(Layer(str(folder / f"{stem}.py"), values))
    return layers


def _is_data(name: str, value: Any) -> bool:
    plain = value is None or isinstance(value, str | int | float | list | tuple | dict | set)
    return plain and not name.startswith("_")


def _compile(path: Path) -> CodeType:
    return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)


def _failure(path: Path, error: BaseException) -> Problem:
    """Name file, line and error; the source line stays out, for it may hold a key."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    if line:
        return Problem(
            "error", str(path), f"line {line}", _name_of(error), "Mend that line of Python"
        )
    if isinstance(error, OSError):
        message = f"it cannot be read: {error.strerror or error}"
        mend = "Let the user that runs the service read it"
        return Problem("error", str(path), "the whole file", message, mend)
    return Problem(
        "error", str(path), "the whole file", _name_of(error), "Make it a file of Python"
    )


def _name_of(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}"
