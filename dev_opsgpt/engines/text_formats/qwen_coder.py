"""Qwen3-Coder, Qwen 3.5, Nemotron 3, Step 3.5 and Seed-OSS: a call as tags, one for each parameter.

``<tool_call><function=name><parameter=key>value</parameter></function></tool_call>``, with line
ends between; the values of Qwen stand on lines of their own. Source: the models' chat templates.
"""

from dev_opsgpt.engines.text_formats.form import Form, Tags
from dev_opsgpt.engines.text_formats.pattern import BLANK, KEY, NAME, TAG, pattern

FUNCTION = "<function="
SEED_CALL, SEED_END = "<seed:tool_call>", "</seed:tool_call>"

_TAGS = Tags(
    key=pattern(BLANK, "<parameter=", KEY, ">"),
    close="</parameter>",
    written="<parameter={key}>\n{value}\n</parameter>\n",
    end=pattern(BLANK, "</function>"),
    lines=True,
)

QWEN_CODER = Form(
    name="Qwen-Coder",
    # The models leave the first mark out now and then.
    opens=("<tool_call>", FUNCTION),
    heads=(
        pattern(BLANK, FUNCTION, NAME, ">", BLANK, TAG),
        pattern(NAME, ">", BLANK, TAG),
    ),
    tagged=_TAGS,
    ends=(pattern(BLANK, "</tool_call>"),),
    call="<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>",
    forced="<tool_call>\n",
    tokens=frozenset(("</tool_call>",)),
)

SEED = Form(
    name="Seed",
    think=("<seed:think>", "</seed:think>"),
    opens=(SEED_CALL,),
    heads=(pattern(BLANK, FUNCTION, NAME, ">", BLANK, TAG),),
    tagged=_TAGS,
    ends=(pattern(BLANK, SEED_END),),
    call=f"{SEED_CALL}\n<function={{name}}>\n{{arguments}}</function>\n{SEED_END}",
    forced=f"{SEED_CALL}\n",
    tokens=frozenset((SEED_END,)),
)
