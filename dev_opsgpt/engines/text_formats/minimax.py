"""MiniMax M2: ``<invoke name="...">`` with a ``<parameter name="...">`` for each argument, several
of them in one ``<minimax:tool_call>``. Source: the model's chat template.
"""

from dev_opsgpt.engines.text_formats.form import Form, Tags
from dev_opsgpt.engines.text_formats.pattern import BLANK, KEY, NAME, TAG, pattern

CALL, CALL_END = "<minimax:tool_call>", "</minimax:tool_call>"

_HEAD = pattern(BLANK, '<invoke name="', NAME, '">', BLANK, TAG)

MINIMAX = Form(
    name="MiniMax",
    opens=(CALL,),
    heads=(_HEAD,),
    tagged=Tags(
        key=pattern(BLANK, '<parameter name="', KEY, '">'),
        close="</parameter>",
        written='<parameter name="{key}">{value}</parameter>\n',
        end=pattern(BLANK, "</invoke>"),
    ),
    more=(_HEAD,),
    closes=(pattern(BLANK, CALL_END),),
    call=f'{CALL}\n<invoke name="{{name}}">\n{{arguments}}</invoke>\n{CALL_END}',
    forced=f"{CALL}\n",
    tokens=frozenset((CALL_END,)),
)
