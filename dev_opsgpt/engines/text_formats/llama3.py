"""Llama 3.1 and later: ``{"name", "parameters"}`` at the beginning of the answer, or after
``<|python_tag|>``; several are divided by semicolons or blanks.

Source: the chat templates of Llama 3.1 to 3.3 and Meta's description of their prompt format. What
the model writes for the tools that Meta built in, ``brave_search.call(...)``, is content.
"""

from dev_opsgpt.engines.text_formats.form import Form, object_head
from dev_opsgpt.engines.text_formats.pattern import BLANK

TAG = "<|python_tag|>"

_KEYS = ("parameters", "arguments")
_TYPE = ('"type"', BLANK, ":", BLANK, '"function"', BLANK, ",", BLANK)
_KINDS = [(key, first) for key in _KEYS for first in ((), _TYPE)]
_HEADS = tuple(object_head(BLANK, key=key, first=first) for key, first in _KINDS)
_MORE = tuple(
    object_head(BLANK, *between, BLANK, key=key, first=first)
    for between in ((), (";",), (TAG,), (";", BLANK, TAG))
    for key, first in _KINDS
)
_CALL = '{"name": "{name}", "parameters": {arguments}}'

LLAMA3 = Form(
    name="Llama 3",
    opens=(TAG,),
    bare=True,
    heads=_HEADS,
    objects=_HEADS + _MORE,
    more=_MORE,
    call=_CALL,
    again=f"; {_CALL}",
)
