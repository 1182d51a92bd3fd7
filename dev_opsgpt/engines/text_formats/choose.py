"""Which format a model writes its tool calls in, and who reads it. Pure."""

from collections.abc import Iterable, Set

import msgspec

from dev_opsgpt.engines.text_formats import (
    deepseek,
    dsml,
    glm,
    harmony,
    hermes,
    kimi,
    listed,
    llama3,
    minimax,
    mistral,
    qwen_coder,
)
from dev_opsgpt.engines.text_formats.form import PLAIN, Form, Tools
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.engines.text_reader import TextReader


class Sign(msgspec.Struct, frozen=True):
    """How a form is told: by all of these in the chat template, and all of these tokens."""

    form: Form
    template: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


_THINKS = mistral.MAGISTRAL.think[0]

SIGNS = (
    # The template says it best, for it shows earlier calls to the model. What others mention too
    # comes last.
    Sign(harmony.HARMONY, (harmony.CHANNEL, harmony.MESSAGE)),
    Sign(glm.GLM, (glm.ARG_KEY, glm.CALL)),
    Sign(qwen_coder.SEED, (qwen_coder.SEED_CALL, qwen_coder.FUNCTION)),
    Sign(qwen_coder.QWEN_CODER, (hermes.CALL, qwen_coder.FUNCTION)),
    Sign(minimax.MINIMAX, (minimax.CALL, "<invoke name=")),
    Sign(listed.TOOL_CALLS, (listed.CALLS, listed.CALLS_END, '"arguments"')),
    # In quotes, as in a string of the template: others name the field of a call so, and write no
    # JSON.
    Sign(hermes.HERMES, (hermes.CALL, '"arguments"')),
    Sign(hermes.HERMES, (hermes.CALL, '"arguments\\"')),
    Sign(dsml.DSML_FORM, (dsml.DSML, "parameter name=")),
    Sign(deepseek.FENCED, (deepseek.BEGIN, deepseek.FENCE)),
    Sign(deepseek.DEEPSEEK, (deepseek.BEGIN,)),
    Sign(kimi.KIMI, (kimi.BEGIN,)),
    Sign(listed.COMMAND, (listed.ACTION,)),
    Sign(listed.TOOLCALL, (listed.UPPER,)),
    Sign(listed.PIPES, (listed.PIPED,)),
    Sign(mistral.MAGISTRAL, (mistral.CALLS, _THINKS)),
    Sign(mistral.MAGISTRAL, (mistral.CALLS,), (_THINKS,)),
    Sign(mistral.NAMED, (mistral.CALLS, mistral.ARGS)),
    Sign(mistral.MISTRAL, (mistral.CALLS,)),
    Sign(llama3.LLAMA3, (llama3.TAG,)),
    # A template that does not tell may still belong to a model that has the marks among its tokens.
    Sign(harmony.HARMONY, tokens=(harmony.CHANNEL, harmony.MESSAGE)),
    Sign(deepseek.DEEPSEEK, tokens=(deepseek.BEGIN,)),
    Sign(kimi.KIMI, tokens=(kimi.BEGIN,)),
    Sign(listed.COMMAND, tokens=(listed.ACTION,)),
    Sign(listed.PIPES, tokens=(listed.PIPED,)),
    Sign(mistral.MAGISTRAL, tokens=(mistral.CALLS, _THINKS)),
    Sign(mistral.NAMED, tokens=(mistral.CALLS, mistral.ARGS)),
    Sign(mistral.MISTRAL, tokens=(mistral.CALLS,)),
    Sign(llama3.LLAMA3, ('"parameters"',), (llama3.TAG,)),
)
"""The first one that a model has tells its form."""


def form_of(template: str, tokens: Set[str] = frozenset()) -> Form:
    """The format of a model with this chat template and these special or added tokens; ``PLAIN``
    where neither tells."""
    for sign in SIGNS:
        if _all(sign.template, template) and _all(sign.tokens, tokens):
            return sign.form
    return PLAIN


def reader_of(
    form: Form, tools: Tools, *, thinking: bool = False, parallel: bool = True
) -> TextReader:
    """Who reads the text of a model with this form; see ``FormReader``."""
    if form.channels:
        return harmony.ChannelReader(tools, parallel=parallel)
    return FormReader(form, tools, thinking=thinking, parallel=parallel)


def _all(wanted: Iterable[str], among: str | Set[str]) -> bool:
    return all(one in among for one in wanted)
