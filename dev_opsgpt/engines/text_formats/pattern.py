"""Patterns for text that is still coming: it fits, it does not, or more of it must be seen."""

import re
from typing import Final

import msgspec

BLANK: Final = object()
"""Any white space, or none."""
QUOTED: Final = object()
"""A JSON string, captured with its quotes."""
STRING: Final = object()
"""A JSON string that says nothing of interest."""
NAME: Final = object()
"""The name of a function, captured."""
KEY: Final = object()
"""The name of a parameter in a tag, captured."""
NUMBER: Final = object()
"""Some digits."""
OBJECT: Final = object()
"""The place before the first brace of a JSON object, when what follows looks like one."""
TAG: Final = object()
"""The place before a tag."""

# Element -> its regular expression, and that of its beginnings.
_FORMS = {
    BLANK: (r"\s*", r"\s*"),
    QUOTED: (r'("(?:[^"\\]|\\.)*")', r'(?:"(?:[^"\\]|\\.)*\\?)?'),
    STRING: (r'"(?:[^"\\]|\\.)*"', r'(?:"(?:[^"\\]|\\.)*\\?)?'),
    NAME: (r"([\w.-]+)", r"[\w.-]*"),
    KEY: (r'([^<>"\n]+)', r'[^<>"\n]*'),
    NUMBER: (r"\d+", r"\d*"),
    OBJECT: (r'(?=\{\s*["}])', r"(?:\{\s*)?"),
    TAG: ("(?=<)", ""),
}


class Pattern(msgspec.Struct, frozen=True):
    """A sequence of elements: those above, and literal strings."""

    full: "re.Pattern[str]"
    partial: "re.Pattern[str]"


class Fit(msgspec.Struct, frozen=True):
    """The text fits up to ``end``; ``captured`` is the string or the name in it, if it has one."""

    pattern: Pattern
    end: int
    captured: str | None


def pattern(*elements: object) -> Pattern:
    """The pattern of these elements, one after the other."""
    # Two blanks would share a long run of them out in every way that there is.
    pairs = zip(elements, (None, *elements), strict=False)
    elements = tuple(one for one, before in pairs if one is not BLANK or before is not BLANK)
    full = "".join(_whole(element) for element in elements)
    partial = ""
    for element in reversed(elements):
        rest = f"|{_whole(element)}(?:{partial})" if partial else ""
        partial = f"{_beginning(element)}\\Z{rest}"
    return Pattern(re.compile(full, re.DOTALL), re.compile(partial, re.DOTALL))


def fit(patterns: tuple[Pattern, ...], text: str, start: int = 0) -> Fit | bool:
    """How the text from ``start`` on fits the first pattern that it does fit; else whether it may
    still come to fit one."""
    for one in patterns:
        match = one.full.match(text, start)
        if match is not None:
            captured = match[1] if one.full.groups else None
            return Fit(one, match.end(), captured)
    return any(one.partial.match(text, start) for one in patterns)


def beginnings(marks: tuple[str, ...]) -> "re.Pattern[str]":
    """What may be the beginning of one of the marks, with the blanks before it, at the end of a
    text."""
    found = sorted({mark[:n] for mark in marks for n in range(1, len(mark))}, key=len)
    return re.compile(rf"\s*(?:{'|'.join(re.escape(one) for one in reversed(found))})?\Z")


def _whole(element: object) -> str:
    return re.escape(element) if isinstance(element, str) else _FORMS[element][0]


def _beginning(element: object) -> str:
    if not isinstance(element, str):
        return _FORMS[element][1]
    return f"(?:{'|'.join(re.escape(element[:n]) for n in range(len(element), -1, -1))})"
