"""Mistral: ``[TOOL_CALLS]`` and a list of ``{"name", "arguments"}``, or, since the eleventh version
of its tokenizer, ``[TOOL_CALLS]name[ARGS]{...}`` for each call.

Source: the tokenizers of mistral-common, and the chat templates of Mistral 7B v0.3 to Magistral,
whose reasoning stands between ``[THINK]`` tags.
"""

import msgspec

from dev_opsgpt.engines.text_formats.form import Form, object_head
from dev_opsgpt.engines.text_formats.pattern import BLANK, NAME, OBJECT, pattern

CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"

_LIST = object_head(BLANK, "[", BLANK, key="arguments")
_ONE = object_head(BLANK, key="arguments")
_NEXT = object_head(BLANK, ",", BLANK, key="arguments")
_NAMED = (
    pattern(BLANK, NAME, BLANK, ARGS, BLANK, OBJECT),
    pattern(BLANK, NAME, BLANK, CALL_ID, BLANK, NAME, BLANK, ARGS, BLANK, OBJECT),
    pattern(BLANK, NAME, BLANK, OBJECT),
)
_CALL = '{"name": "{name}", "arguments": {arguments}}'

MISTRAL = Form(
    name="Mistral",
    opens=(CALLS,),
    heads=(_LIST, _ONE, *_NAMED),
    objects=(_LIST, _ONE, _NEXT),
    more=(_NEXT,),
    closes=(pattern(BLANK, "]"),),
    call=f"{CALLS}[{_CALL}]",
    again=f", {_CALL}",
    last="]",
    forced=CALLS,
    short_ids=True,
    tokens=frozenset((ARGS, CALL_ID)),
)
_NAMED_CALL = f"{CALLS}{{name}}{ARGS}{{arguments}}"
NAMED = msgspec.structs.replace(
    MISTRAL, name="Mistral 11", call=_NAMED_CALL, again=_NAMED_CALL, last=""
)
MAGISTRAL = msgspec.structs.replace(NAMED, name="Magistral", think=("[THINK]", "[/THINK]"))
