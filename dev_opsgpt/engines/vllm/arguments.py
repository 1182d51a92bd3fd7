"""The arguments that a user gives to vLLM (``engine_args``): checked against vLLM's own parser, and
made into its command line. Pure."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from dev_opsgpt.worker.engine import EngineError

Kind = Literal["int", "size", "float", "str", "bool", "json", "any"]
_ALIKE = 0.6


class Argument(msgspec.Struct, frozen=True):
    """One argument of vLLM's parser. ``option`` is its long form, ``negative`` the one that says
    no, where there is one. ``many`` values may follow it, or it may be ``repeated``."""

    name: str
    option: str
    kind: Kind
    negative: str | None = None
    many: bool = False
    repeated: bool = False
    choices: list[str | int | float] | None = None


class Schema(msgspec.Struct, frozen=True):
    """What one version of vLLM takes; ``device`` is what it was built for (``cpu``, ``cuda``)."""

    version: str
    device: str
    arguments: list[Argument]

    def find(self, name: str) -> Argument | None:
        """An argument by its name in ``engine_args``, which may be written with dashes."""
        wanted = plain(name)
        return next((one for one in self.arguments if one.name == wanted), None)


_SET_BY_US = {
    "model": "the model is that of VLLM_MODEL_DICT",
    "model_tag": "the model is that of VLLM_MODEL_DICT",
    "served_model_name": "clients' names are FSCHAT_MODEL_WORKERS' model_names",
    "host": "the address is the worker's host",
    "port": "the port is a free one; clients ask the gateway",
    "api_key": "a key is drawn for every start",
    "middleware": "the worker's own check of that key stands there",
}
_NOT_HERE = {
    "hf_token": "a token on a command line can be read by everybody; write it as "
    'engine_env {"HF_TOKEN": ...}',
    "config": "a second file of arguments could contradict these; write them here",
    "uds": "the gateway reaches vLLM by its port",
    "root_path": "the gateway asks for /v1/...",
    "headless": "the worker waits for vLLM's server",
    "grpc": "the gateway speaks HTTP",
    "ssl_keyfile": "the gateway speaks plain HTTP to its workers",
    "ssl_certfile": "the gateway speaks plain HTTP to its workers",
    "help": "it starts nothing",
    "version": "it starts nothing",
}


def plain(name: str) -> str:
    """An argument's name without dashes: ``--max-model-len`` is ``max_model_len``."""
    return name.removeprefix("--").replace("-", "_")


def refused(name: str) -> str | None:
    """Why an argument may not be given, None where it may."""
    name = plain(name)
    if name in _SET_BY_US:
        return f"it is set by the worker: {_SET_BY_US[name]}"
    return _NOT_HERE.get(name)


def command_line(given: Mapping[str, Any], schema: Schema) -> list[str]:
    """The words of the command line for some arguments. None leaves an argument at its default.

    Raises ``EngineError`` that names the argument: it is unknown, or set by us, or its value is
    none that it takes.
    """
    words: list[str] = []
    for name, value in given.items():
        if why := refused(name):
            raise EngineError(f'engine_args["{name}"]: {why}.')
        argument = schema.find(name)
        if argument is None:
            raise EngineError(_unknown(name, schema))
        if value is not None:
            words += _words(argument, name, value)
    return words


def _unknown(name: str, schema: Schema) -> str:
    names = [one.name for one in schema.arguments if refused(one.name) is None]
    near = difflib.get_close_matches(plain(name), names, 1, _ALIKE)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return f'engine_args["{name}"]: vLLM {schema.version} has no such argument{hint}'


def _words(argument: Argument, name: str, value: Any) -> Iterator[str]:
    if argument.kind == "bool":
        if not isinstance(value, bool):
            raise _wrong(name, "true or false", value)
        if value:
            yield argument.option
        elif argument.negative is not None:
            yield argument.negative
    elif argument.kind != "json" and (argument.many or argument.repeated):
        if not isinstance(value, list | tuple) or not value:
            raise _wrong(name, "a list of values", value)
        texts = [_text(argument, name, one) for one in value]
        yield from _several(argument, texts)
    else:
        # With "=", so that a value may begin with a dash.
        yield f"{argument.option}={_text(argument, name, value)}"


def _several(argument: Argument, texts: Iterable[str]) -> Iterator[str]:
    if argument.repeated:
        yield from (f"{argument.option}={text}" for text in texts)
    else:
        yield argument.option
        yield from texts


def _text(argument: Argument, name: str, value: Any) -> str:
    """A value as the parser reads it."""
    if argument.choices is not None and value not in argument.choices:
        allowed = ", ".join(str(one) for one in argument.choices)
        raise _wrong(name, f"one of {allowed}", value)
    if argument.kind == "int" and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong(name, "a whole number", value)
    if argument.kind == "float" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(name, "a number", value)
    if argument.kind == "size" and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise _wrong(name, 'a whole number, or one such as "8k"', value)
    if argument.kind == "str" and not isinstance(value, str):
        raise _wrong(name, "a text", value)
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        raise _wrong(name, "plain data", value) from None


def _wrong(name: str, wanted: str, value: Any) -> EngineError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return EngineError(f'engine_args["{name}"] must be {wanted}, not {shown}.')
