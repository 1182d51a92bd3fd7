"""Which format a model writes its tool calls in. Pure."""

import re
from collections.abc import Set

from dev_opsgpt.engines.text_formats import deepseek, hermes, llama3, mistral
from dev_opsgpt.engines.text_formats.form import PLAIN, Form

# In quotes, as in a string of the template: others name the field of a call so, and write no JSON.
_ARGUMENTS = re.compile(r'"arguments\\?"')


def form_of(template: str, tokens: Set[str] = frozenset()) -> Form:
    """The format of a model with this chat template and these special or added tokens.

    The template says it best, for it shows earlier calls to the model; a template that does not
    may still belong to a model that has the marks among its tokens. ``PLAIN`` where neither tells.
    """
    if hermes.CALL in template and _ARGUMENTS.search(template):
        return hermes.HERMES
    for known in (template, tokens):
        if deepseek.BEGIN in known:
            return deepseek.DEEPSEEK
        if mistral.CALLS in known:
            thinks = mistral.MAGISTRAL.think[0]
            return mistral.MAGISTRAL if thinks in template or thinks in tokens else mistral.MISTRAL
        if llama3.TAG in known and (known is template or '"parameters"' in template):
            return llama3.LLAMA3
    return PLAIN
