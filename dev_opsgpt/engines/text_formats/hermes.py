"""Hermes-style models (Hermes, Qwen, our own): ``<tool_call>{"name", "arguments"}</tool_call>``.

Source: the chat templates of Hermes 2 Pro, Qwen 2.5 and Qwen 3.
"""

from dev_opsgpt.engines.text_formats.form import Form, object_head
from dev_opsgpt.engines.text_formats.pattern import BLANK, pattern

CALL, CALL_END = "<tool_call>", "</tool_call>"

_HEADS = tuple(object_head(BLANK, key=key) for key in ("arguments", "parameters"))

_CALL = f'{CALL}\n{{"name": "{{name}}", "arguments": {{arguments}}}}\n{CALL_END}'

HERMES = Form(
    name="Hermes",
    opens=(CALL,),
    heads=_HEADS,
    objects=_HEADS,
    ends=(pattern(BLANK, CALL_END),),
    call=_CALL,
    again=f"\n{_CALL}",
    exact=True,
    forced=f"{CALL}\n",
    tokens=frozenset((CALL_END,)),
)
