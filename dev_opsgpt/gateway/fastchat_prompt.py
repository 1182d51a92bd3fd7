"""Messages -> one prompt, by the conversation template of a FastChat worker. Pure.

FastChat's workers take a text, not messages, so whoever calls one renders it as FastChat's own
gateway does. Source: fschat 0.2.36, ``conversation.py``. From 8 up later versions number their
styles differently (a style was put in between); these are the numbers of 0.2.36, the last one
that was released.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.protocol.fastchat import Conversation

_FIELD = re.compile(r"\{\{|\}\}|\{system_message\}")


class _Conv(NamedTuple):
    """What the rules need of a template: the system text, filled in, and the separators."""

    name: str
    system: str
    has_message: bool
    roles: tuple[str, str]
    sep: str
    sep2: str

    def alternate(self, i: int) -> str:
        """The separator after turn ``i``."""
        return self.sep2 if i % 2 else self.sep


Head = Callable[[_Conv], str]
Said = Callable[[_Conv, int, str, str], str]
Asked = Callable[[_Conv, int, str], str]


class _Style(NamedTuple):
    """``head`` opens the prompt, ``said`` is a turn with text, ``asked`` one without."""

    head: Head
    said: Said
    asked: Asked


def render(template: Conversation) -> str:
    """The prompt of a conversation, its messages included; a turn whose text is empty or null
    asks its role to speak.

    Raises ``UpstreamFailed`` for a style that 0.2.36 does not have.
    """
    style = STYLES.get(template.sep_style)
    if style is None:
        raise UpstreamFailed(
            f"The model's worker wants prompts in FastChat's style {template.sep_style}, which "
            "is not known here."
        )
    conv = _Conv(
        template.name,
        _filled(template.system_template, template.system_message),
        bool(template.system_message),
        template.roles,
        template.sep,
        template.sep2 or "",
    )
    parts = [style.head(conv)]
    for i, (role, text) in enumerate(template.messages):
        parts.append(style.said(conv, i, role, text) if text else style.asked(conv, i, role))
    prompt = "".join(parts)
    return prompt.rstrip("<n>") + conv.sep if template.sep_style == _YUAN2 else prompt


def _filled(template: str, message: str) -> str:
    """``str.format`` with the one field there is; a worker's template gets no more power."""
    known = {"{{": "{", "}}": "}", "{system_message}": message}
    return _FIELD.sub(lambda found: known[found[0]], template)


def _system(c: _Conv) -> str:
    return c.system


def _system_sep(c: _Conv) -> str:
    return c.system + c.sep


def _system_sep_if_any(c: _Conv) -> str:
    return c.system + c.sep if c.system else ""


def _named(after: str) -> Asked:
    return lambda c, i, r: r + after


def _llama2(c: _Conv, i: int, r: str, m: str) -> str:
    return f"{m} " if i == 0 else f"{c.roles[i % 2]} {m}{c.alternate(i)}"


def _round(c: _Conv, i: int) -> str:
    return "" if i % 2 else f"[Round {i // 2 + (c.name == 'chatglm2')}]{c.sep}"


def _opened(i: int) -> str:
    return "" if i % 2 else "<s>"


def _rwkv(c: _Conv, i: int, r: str, m: str) -> str:
    text = m.replace("\r\n", "\n").replace("\n\n", "\n")
    return f"{r}: {text}\n\n"


def _metamath(c: _Conv, i: int, r: str) -> str:
    return f"{r}: {c.sep2}" if i % 2 else f"{r}:\n"


_YUAN2 = 19

STYLES: Mapping[int, _Style] = MappingProxyType(
    {
        # ADD_COLON_SINGLE, ADD_COLON_TWO, ADD_COLON_SPACE_SINGLE
        1: _Style(_system_sep, lambda c, i, r, m: f"{r}: {m}{c.sep}", _named(":")),
        2: _Style(_system_sep, lambda c, i, r, m: f"{r}: {m}{c.alternate(i)}", _named(":")),
        3: _Style(_system_sep, lambda c, i, r, m: f"{r}: {m}{c.sep}", _named(": ")),
        # NO_COLON_SINGLE, NO_COLON_TWO
        4: _Style(_system, lambda c, i, r, m: f"{r}{m}{c.sep}", _named("")),
        5: _Style(_system, lambda c, i, r, m: f"{r}{m}{c.alternate(i)}", _named("")),
        # ADD_NEW_LINE_SINGLE
        6: _Style(_system_sep_if_any, lambda c, i, r, m: f"{r}\n{m}{c.sep}", _named("\n")),
        # LLAMA2
        7: _Style(
            lambda c: c.system if c.has_message else "[INST] ",
            _llama2,
            lambda c, i, r: c.roles[i % 2],
        ),
        # CHATGLM
        8: _Style(
            _system_sep_if_any,
            lambda c, i, r, m: f"{_round(c, i)}{r}：{m}{c.sep}",
            lambda c, i, r: f"{_round(c, i)}{r}：",
        ),
        # CHATML
        9: _Style(
            lambda c: f"{c.system}{c.sep}\n" if c.system else "",
            lambda c, i, r, m: f"{r}\n{m}{c.sep}\n",
            _named("\n"),
        ),
        # CHATINTERN
        10: _Style(
            _system,
            lambda c, i, r, m: f"{_opened(i)}{r}:{m}{c.alternate(i)}\n",
            lambda c, i, r: f"{_opened(i)}{r}:",
        ),
        # DOLLY
        11: _Style(
            _system,
            lambda c, i, r, m: f"{r}:\n{m}{c.alternate(i)}" + ("\n\n" if i % 2 else ""),
            _named(":\n"),
        ),
        # RWKV, PHOENIX, ROBIN
        12: _Style(_system, _rwkv, _named(":")),
        13: _Style(_system, lambda c, i, r, m: f"{r}: <s>{m}</s>", _named(": <s>")),
        14: _Style(_system_sep, lambda c, i, r, m: f"{r}:\n{m}{c.sep}", _named(":\n")),
        # FALCON_CHAT
        15: _Style(
            lambda c: c.system + c.sep if c.has_message else "",
            lambda c, i, r, m: f"{r}: {m}{c.sep}",
            _named(":"),
        ),
        # CHATGLM3
        16: _Style(
            lambda c: c.system if c.has_message else "",
            lambda c, i, r, m: f"{r}\n{m}",
            _named(""),
        ),
        # DEEPSEEK_CHAT
        17: _Style(_system, lambda c, i, r, m: f"{r}: {m}{c.alternate(i)}", _named(":")),
        # METAMATH
        18: _Style(
            _system_sep_if_any,
            lambda c, i, r, m: _metamath(c, i, r) + m + ("" if i % 2 else c.sep),
            _metamath,
        ),
        # YUAN2_0
        _YUAN2: _Style(
            lambda c: c.system + c.sep2 if c.has_message else "",
            lambda c, i, r, m: f"{m}<n>",
            lambda c, i, r: "",
        ),
    }
)
