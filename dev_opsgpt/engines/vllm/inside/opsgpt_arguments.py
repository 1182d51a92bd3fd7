"""Tells as JSON which arguments vLLM takes: ``python opsgpt_arguments.py``, in its interpreter.

Read from vLLM's own parser, whatever its version. The last line of the output is an object:
``device`` (``cpu``, ``cuda``, ...) and ``arguments``, each with the form that ``arguments.py``
gives an ``Argument``.
"""

import argparse
import json
import sys
from typing import Any

_KINDS = {int: "int", float: "float", str: "str", bool: "bool"}


def main() -> None:
    """Prints the object."""
    from vllm.platforms import current_platform

    found = [_described(action) for action in _parser()._actions if action.option_strings]
    device = current_platform.device_type or "cpu"
    sys.stdout.write("\n" + json.dumps({"device": device, "arguments": found}) + "\n")


def _parser() -> argparse.ArgumentParser:
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:  # before 0.30
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:  # before 0.11
        from vllm.utils import FlexibleArgumentParser
    made: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    return made


def _described(action: argparse.Action) -> dict[str, Any]:
    options = [option for option in action.option_strings if option.startswith("--")]
    negative = next((option for option in options if option.startswith("--no-")), None)
    choices = None
    if action.choices is not None:
        choices = [one for one in action.choices if isinstance(one, str | int | float)]
    return {
        "name": action.dest,
        "option": next((o for o in options if o != negative), action.option_strings[0]),
        "negative": negative,
        "kind": "bool" if action.nargs == 0 else _kind(action),
        "many": action.nargs in ("+", "*") or (isinstance(action.nargs, int) and action.nargs > 0),
        "repeated": isinstance(action, argparse._AppendAction),
        "choices": choices,
    }


def _kind(action: argparse.Action) -> str:
    """What a value has to be: ``int``, ``float``, ``str``, ``json``, ``size`` for a number that may
    be written as ``8k``, or ``any`` where the parser's own converter decides."""
    return "str" if action.type is None else _held(action.type, 4)


def _held(convert: Any, depth: int) -> str:
    """The kind of a converter. One that lets None through holds the real one in its closure."""
    if convert is json.loads:
        return "json"
    if getattr(convert, "__name__", "").startswith("human_readable_int"):
        return "size"
    if isinstance(convert, type):
        return _KINDS.get(convert, "any")
    cells = (getattr(convert, "__closure__", None) or ()) if depth else ()
    found = {_held(cell.cell_contents, depth - 1) for cell in cells}
    known = found - {"any"}
    return known.pop() if len(known) == 1 else "any"


if __name__ == "__main__":
    main()
