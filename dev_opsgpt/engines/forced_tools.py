"""A tool call that the model cannot get around: the grammar of its text, and the text read back.

The engine makes the model write ``{"name": ..., "arguments": ...}``, one alternative a tool, with
the spacing that Hermes-style models were trained on, which makes the head of the text predictable;
or a call in the model's own form, whose heads are known.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dev_opsgpt.engines.asked_schema import require_end
from dev_opsgpt.engines.text_reader import TextReader
from dev_opsgpt.protocol.errors import InternalError, InvalidRequest
from dev_opsgpt.protocol.openai import ChatRequest, Tool
from dev_opsgpt.worker.engine import Delta, ToolCallDelta
from dev_opsgpt.worker.openai_stream import new_call_id

_HEAD = re.compile(r'\{"name": "([^"]+)", "arguments": ')
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


Places = list[tuple[Tool, str]]
"""Tools, and where they stand in the request."""


def places_of(request: ChatRequest) -> Places:
    """The tools that the model may, or must, call."""
    if request.tool_choice == "none":
        return []
    return [
        (tool, f"tools.{place}")
        for place, tool in enumerate(request.tools or [])
        if request.forced_tool in (None, tool.function.name)
    ]


def call_schema(tools: Places, *, key: str = "arguments") -> dict[str, Any]:
    """The JSON schema of a call of one of ``tools``, whose arguments are under ``key``.

    Raises ``InvalidRequest`` for parameters that are not those of an object.
    """
    parameters = {}
    calls = []
    for place, (tool, path) in enumerate(tools):
        parameters[f"p{place}"] = parameters_of(tool, path, f"#/$defs/p{place}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.function.name},
                    key: {"$ref": f"#/$defs/p{place}"},
                },
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": parameters}


def parameters_of(tool: Tool, path: str, root: str = "#") -> dict[str, Any]:
    """The schema of a tool's arguments, to stand at ``root`` of another. Raises ``InvalidRequest``
    for one that is not an object's, or that no text can end by."""
    given = tool.function.parameters
    if not given:
        return _NO_PARAMETERS
    where = f"{path}.function.parameters"
    if given.get("type", "object") != "object":
        raise InvalidRequest(f"'{where}' must be a schema of type 'object'.", param=where)
    require_end({**given, "type": "object"}, where)
    moved: dict[str, Any] = _moved(given, root)
    return {"type": "object", **{k: v for k, v in moved.items() if k not in ("$id", "$schema")}}


def _moved(schema: Any, root: str) -> Any:
    """The schema with its references to its own root pointing to ``root``, where it will stand."""
    if isinstance(schema, list):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _moved(value, root) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        found["$ref"] = root + reference[1:]
    return found


class CallReader:
    """Reads the text of one call as it is generated and gives it as the pieces of a tool call.

    ``heads`` tells the tool by what its call begins with. Without them the call is an object with
    name and arguments: its last brace does not belong to the arguments, so a brace at the end of
    what has come is held back until more comes.
    """

    def __init__(self, heads: Mapping[str, str] | None = None) -> None:
        self._heads = heads
        self._head = ""
        self._name: str | None = None
        self._arguments = ""
        self._held = ""

    done = False
    reasoning = False

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """The pieces that the content of ``delta`` completes."""
        text = delta.content
        if self._name is None:
            self._head += text
            self._name, end = self._begun()
            if self._name is None:
                return
            yield Delta(tool_calls=[ToolCallDelta(0, new_call_id(), self._name)])
            text = self._head[end:]
        text = self._held + text
        self._held = "}" if self._heads is None and text.endswith("}") else ""
        yield from self._give(text.removesuffix("}") if self._held else text)

    def _begun(self) -> tuple[str | None, int]:
        """The tool, once it is known, and where its arguments begin."""
        if self._heads is None:
            match = _HEAD.match(self._head)
            return (None, 0) if match is None else (match[1], match.end())
        for head, name in self._heads.items():
            if self._head.startswith(head):
                return name, len(head)
        return None, 0

    def end(self) -> Iterator[Delta]:
        """What was held back, if the answer broke off inside of the arguments."""
        if self._held and not self._complete:
            yield from self._give(self._held)
        self._held = ""

    def finish(self, reason: str) -> str:
        """``tool_calls`` for a whole call, else ``length``."""
        if self._complete:
            return "tool_calls"
        if reason != "length":
            raise InternalError("The model broke off its tool call.")
        return reason

    @property
    def _complete(self) -> bool:
        try:
            return isinstance(json.loads(self._arguments), dict)
        except (ValueError, RecursionError):
            return False

    def _give(self, text: str) -> Iterator[Delta]:
        self._arguments += text
        if text:
            yield Delta(tool_calls=[ToolCallDelta(0, arguments=text)])


class WholeCall:
    """Reads a call that must be made by the reader of the model's form. The prompt ends with the
    ``begun`` part of it."""

    reasoning = False
    done = False

    def __init__(self, reader: TextReader, begun: str) -> None:
        self._reader = reader
        self._begun = begun

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What ``delta`` makes certain."""
        if self._begun:
            yield from self._reader.feed(Delta(content=self._begun))
            self._begun = ""
        yield from self._reader.feed(delta)

    def end(self) -> Iterator[Delta]:
        """What was held back, if it belongs to the call."""
        yield from (delta for delta in self._reader.end() if delta.tool_calls)

    def finish(self, reason: str) -> str:
        """``tool_calls`` for a whole call, else ``length``."""
        found = self._reader.finish(reason)
        if found == "stop":
            raise InternalError("The model broke off its tool call.")
        return found
