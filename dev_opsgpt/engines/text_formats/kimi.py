"""Kimi K2: ``functions.name:0`` and a JSON object for each call, in a section of calls.

Source: the model's chat template. The number counts the calls of a conversation.
"""

from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.engines.text_formats.pattern import BLANK, NAME, NUMBER, OBJECT, pattern

BEGIN, END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = (
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)

_HEADS = tuple(
    pattern(BLANK, CALL, BLANK, before, NAME, *number, BLANK, ARGUMENTS, BLANK, OBJECT)
    for before in ("functions.", "")
    for number in ((":", NUMBER), ())
)

KIMI = Form(
    name="Kimi",
    opens=(BEGIN,),
    heads=_HEADS,
    ends=(pattern(BLANK, CALL_END),),
    more=_HEADS,
    closes=(pattern(BLANK, END),),
    call=f"{BEGIN}{CALL}functions.{{name}}:0{ARGUMENTS}{{arguments}}{CALL_END}{END}",
    forced=f"{BEGIN}{CALL}",
    tokens=frozenset((END, CALL, ARGUMENTS, CALL_END)),
)
