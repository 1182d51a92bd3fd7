"""DeepSeek V3.2 and V4: ``<｜DSML｜invoke name="...">`` with a parameter in tags for each argument.

Each says of itself whether it is a text; the tool's schema says so too, and goes before. Source:
the chat templates that others wrote after DeepSeek's description.
"""

from dev_opsgpt.engines.text_formats.form import Form, Tags
from dev_opsgpt.engines.text_formats.pattern import BLANK, KEY, NAME, STRING, TAG, pattern

DSML = "｜DSML｜"
CALLS = (f"<{DSML}function_calls>", f"<{DSML}tool_calls>")

_HEAD = pattern(BLANK, f'<{DSML}invoke name="', NAME, '">', BLANK, TAG)

DSML_FORM = Form(
    name="DSML",
    opens=CALLS,
    heads=(_HEAD,),
    tagged=Tags(
        key=pattern(BLANK, f'<{DSML}parameter name="', KEY, '" string=', STRING, ">"),
        close=f"</{DSML}parameter>",
        end=pattern(BLANK, f"</{DSML}invoke>"),
    ),
    more=(_HEAD,),
    closes=tuple(pattern(BLANK, call.replace("<", "</")) for call in CALLS),
    tokens=frozenset((DSML, *(call.replace("<", "</") for call in CALLS))),
)
