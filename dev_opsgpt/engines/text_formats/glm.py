"""GLM 4.5 to 4.7, Ling 3 and Laguna: ``<tool_call>name``, and for each argument ``<arg_key>`` and
``<arg_value>``. Source: the models' chat templates.
"""

from dev_opsgpt.engines.text_formats.form import Form, Tags
from dev_opsgpt.engines.text_formats.pattern import BLANK, KEY, NAME, TAG, pattern

CALL, CALL_END, ARG_KEY = "<tool_call>", "</tool_call>", "<arg_key>"

GLM = Form(
    name="GLM",
    opens=(CALL,),
    heads=(pattern(BLANK, NAME, BLANK, TAG),),
    tagged=Tags(
        key=pattern(BLANK, ARG_KEY, KEY, "</arg_key>", BLANK, "<arg_value>"),
        close="</arg_value>",
        written="<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
    ),
    ends=(pattern(BLANK, CALL_END),),
    call=f"{CALL}{{name}}\n{{arguments}}{CALL_END}",
    forced=CALL,
    tokens=frozenset(
        (CALL_END, ARG_KEY, "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
)
