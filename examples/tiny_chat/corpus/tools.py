"""Tool use: questions that fit a tool, the call, its result, and the answer made from it."""

import json
import random
from typing import Any

from tiny_chat.corpus.dialogue import Dialogue, Skill, Voice, expand, message, pick, turns
from tiny_chat.corpus.memory import NAMES, new_name
from tiny_chat.corpus.tool_kinds import CITIES_ZH, PLACE, TOOLS, Tool


def schema(tool: Tool, name: str, keys: list[str], rng: random.Random) -> dict[str, Any]:
    """The tool as the OpenAI API declares it."""
    properties: dict[str, Any] = {}
    describe = rng.random() < 0.3
    for key, (_, kind, _) in zip(keys, tool.parameters, strict=True):
        properties[key] = {"type": kind}
        if describe:
            properties[key]["description"] = f"The {key}"
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.7:
        parameters["required"] = keys
    function: dict[str, Any] = {"name": name}
    if rng.random() < 0.8:
        function["description"] = expand(tool.about, rng).strip()
    return {"type": "function", "function": function | {"parameters": parameters}}


def instance(tool: Tool, rng: random.Random) -> tuple[str, list[str], dict[str, Any]]:
    """The tool under one of its names, its argument names, and its declaration."""
    name = rng.choice(tool.names)
    keys = [rng.choice(names) for names, _, _ in tool.parameters]
    return name, keys, schema(tool, name, keys, rng)


def value_for(kind: str, values: tuple[Any, ...], chinese: bool, rng: random.Random) -> Any:
    """An argument's value; at times a made-up one, so that values are copied, not chosen."""
    if values is PLACE[2] and chinese:
        return rng.choice(CITIES_ZH)
    if kind == "string" and values in (PLACE[2], tuple(NAMES)) and rng.random() < 0.3:
        return new_name(rng)
    return rng.choice(values)


def filled(text: str, values: list[Any]) -> str:
    """`text` with {0}, {1} replaced by the values."""
    for index, value in enumerate(values):
        text = text.replace("{" + str(index) + "}", str(value))
    return text


def outcome(tool: Tool, values: list[Any], rng: random.Random) -> dict[str, Any]:
    """What the tool gives back."""
    if "[=]" in tool.result:
        a, b = values
        return {"result": a + b if tool.names[0] == "add" else a * b}
    result: dict[str, Any] = json.loads(expand(tool.result, rng))
    return result


def tell(tool: Tool, values: list[Any], result: dict[str, Any], rng: random.Random) -> str:
    """The answer made from the result."""
    flat = {key: v[0] if isinstance(v, list) else v for key, v in result.items()}
    return filled(pick(tool.tell, rng, **flat), values)


def call_turns(tool: Tool, name: str, keys: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Question, call, and mostly the result and the answer."""
    ask = rng.choice(tool.ask)
    chinese = not ask.isascii()
    values = [value_for(kind, options, chinese, rng) for _, kind, options in tool.parameters]
    arguments = dict(zip(keys, values, strict=True))
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    said = [message("user", filled(expand(ask, rng), values))]
    said.append({"role": "assistant", "content": "", "tool_calls": [call]})
    if rng.random() < 0.6:
        result = outcome(tool, values, rng)
        content = json.dumps(result) if rng.random() < 0.7 else str(next(iter(result.values())))
        said.append(message("tool", content))
        if content.startswith("{"):
            said.append(message("assistant", tell(tool, values, result, rng)))
        else:
            said.append(message("assistant", f"The tool says: {content}."))
    return said


def tool_dialogue(rng: random.Random, systems: tuple[str, ...], other: Skill) -> Dialogue:
    """One to four tools on offer; most questions fit one of them, the others need none."""
    offered = rng.sample(TOOLS, k=rng.choice((1, 1, 1, 2, 2, 3, 4)))
    made = [instance(tool, rng) for tool in offered]
    said = [message("system", pick(systems, rng))] if rng.random() < 0.3 else []
    for round_number in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if round_number and "tool_calls" in said[-1]:
            break
        if rng.random() < 0.35:
            said += turns(other(rng, Voice()))
        else:
            index = rng.randrange(len(offered))
            said += call_turns(offered[index], made[index][0], made[index][1], rng)
    return Dialogue(tuple(said), tuple(declaration for _, _, declaration in made))
