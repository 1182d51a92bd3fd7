"""Models that write calls as JSON objects behind a mark, in a list or one after the other.

Granite 3 and Phi-4-mini: ``<|tool_call|>``; Nemotron Nano 2: ``<TOOLCALL>``; Apriel and MiniMax M1:
``<tool_calls>``; Command R7B: ``<|START_ACTION|>``, with keys of its own. Source: the models' chat
templates.
"""

from dev_opsgpt.engines.text_formats.form import THINK, Form, object_head
from dev_opsgpt.engines.text_formats.pattern import BLANK, STRING, Pattern, pattern

PIPED, PIPED_END = "<|tool_call|>", "<|/tool_call|>"
UPPER, UPPER_END = "<TOOLCALL>", "</TOOLCALL>"
CALLS, CALLS_END = "<tool_calls>", "</tool_calls>"
ACTION, ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"

_NUMBERED = ('"tool_call_id"', BLANK, ":", BLANK, STRING, BLANK, ",", BLANK)


def _listed(mark: str, end: str, *, think: tuple[str, str] = THINK, cohere: bool = False) -> Form:
    """Calls between these marks; a mark that is missing at the end is none that is missed."""
    name, arguments = ("tool_name", "parameters") if cohere else ("name", "arguments")

    def heads(between: str) -> tuple[Pattern, ...]:
        return tuple(
            object_head(BLANK, *before, key=arguments, first=first, name=name)
            for before in ((between, BLANK), ())
            for first in ((_NUMBERED, ()) if cohere else ((),))
        )

    first, more = heads("["), heads(",")
    return Form(
        name=mark.strip("<|>"),
        think=think,
        opens=(mark,),
        heads=first,
        objects=first + more,
        more=more,
        closes=(pattern(BLANK, "]"), pattern(BLANK, end)),
        call=f'{mark}[{{"{name}": "{{name}}", "{arguments}": {{arguments}}}}]{end}',
        forced=mark,
        tokens=frozenset((end,)),
    )


PIPES = _listed(PIPED, PIPED_END)
TOOLCALL = _listed(UPPER, UPPER_END)
TOOL_CALLS = _listed(CALLS, CALLS_END)
COMMAND = _listed(ACTION, ACTION_END, think=("<|START_THINKING|>", "<|END_THINKING|>"), cohere=True)
