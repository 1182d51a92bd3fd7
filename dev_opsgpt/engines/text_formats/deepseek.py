"""DeepSeek V3, R1 and V3.1: calls between ``<｜tool▁calls▁begin｜>`` and ``<｜tool▁calls▁end｜>``.

One call is a begin mark, the name, ``<｜tool▁sep｜>``, the arguments and an end mark since V3.1;
before, a type stood in front of the name, and the arguments in a fenced block. Source: their chat
templates.
"""

import msgspec

from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.engines.text_formats.pattern import BLANK, NAME, OBJECT, pattern

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

FENCE = "```json"

_NAMED = pattern(BLANK, CALL, BLANK, NAME, BLANK, SEPARATOR, BLANK, OBJECT)
_FENCED = pattern(
    *(BLANK, CALL, BLANK, "function", BLANK, SEPARATOR, BLANK, NAME, BLANK),
    *("```", "json", BLANK, OBJECT),
)
_CALL = f"{CALL}{{name}}{SEPARATOR}{{arguments}}{CALL_END}"
_FENCED_CALL = f"{CALL}function{SEPARATOR}{{name}}\n{FENCE}\n{{arguments}}\n```{CALL_END}"

DEEPSEEK = Form(
    name="DeepSeek",
    opens=(BEGIN,),
    heads=(_FENCED, _NAMED),
    ends=(pattern(BLANK, "```", BLANK, CALL_END), pattern(BLANK, CALL_END)),
    more=(_FENCED, _NAMED),
    closes=(pattern(BLANK, END),),
    call=f"{BEGIN}{_CALL}{END}",
    again=_CALL,
    last=END,
    forced=f"{BEGIN}{CALL}",
    tokens=frozenset((END, CALL, SEPARATOR, CALL_END)),
)
FENCED = msgspec.structs.replace(
    DEEPSEEK,
    name="DeepSeek V3",
    call=f"{BEGIN}{_FENCED_CALL}{END}",
    again=f"\n{_FENCED_CALL}",
)
