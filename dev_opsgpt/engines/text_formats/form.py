"""What a format of tool calls consists of, as data for the one reader of all of them."""

import msgspec

from dev_opsgpt.engines.text_formats.pattern import BLANK, OBJECT, QUOTED, Pattern, pattern

THINK = ("<think>", "</think>")


class Writing(msgspec.Struct, frozen=True, kw_only=True):
    """How a model writes calls, for a grammar: ``begin``, calls with ``between`` between them,
    ``end``.

    A call is ``before``, a JSON object with the name and, under ``key``, the arguments, and
    ``after``. Without a ``key`` the name stands there as it is, and ``sign`` divides it from the
    arguments.
    """

    begin: str = ""
    before: str = ""
    key: str | None = None
    sign: str = ""
    after: str = ""
    between: str = ""
    end: str = ""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A format, as the reader meets its parts from left to right.

    ``think`` are the tags around reasoning. Calls begin with one of the marks ``opens``, or, where
    they are ``bare``, with the text itself. What leads from there to the first brace of the
    arguments is one of ``heads``; those that begin a JSON object, to which the arguments belong,
    are among ``objects`` too. One of ``ends`` may close a call; then comes another
    call that begins like one of ``more``, or one of ``closes``, or content.

    ``writings`` are the ways in which calls are written, where a grammar holds them to one.
    ``example`` tells a model how to call a tool, where its template does not; empty for forms whose
    templates do. ``forced`` is what stands before the JSON of a call that must be made.
    ``short_ids`` says that the chat template takes ids of calls of nine letters and digits only.
    ``tokens`` are further marks of the format that a tokenizer may have as special tokens.
    """

    think: tuple[str, str] = THINK
    opens: tuple[str, ...] = ()
    bare: bool = False
    heads: tuple[Pattern, ...] = ()
    objects: tuple[Pattern, ...] = ()
    ends: tuple[Pattern, ...] = ()
    more: tuple[Pattern, ...] = ()
    closes: tuple[Pattern, ...] = ()
    writings: tuple[Writing, ...] = ()
    example: str = ""
    forced: str = ""
    short_ids: bool = False
    tokens: frozenset[str] = frozenset()

    @property
    def marks(self) -> frozenset[str]:
        """All that is text here although it may be special tokens."""
        return self.tokens.union(self.think, self.opens)


PLAIN = Form()
"""No tool calls that could be told from text; reasoning in ``<think>`` tags."""


def object_head(*before: object, key: str, first: tuple[object, ...] = ()) -> Pattern:
    """The head of a call ``{"name": ..., key: {`` after ``before``, with ``first`` in front of the
    name."""
    name = ('"name"', BLANK, ":", BLANK, QUOTED, BLANK, ",", BLANK)
    arguments = (f'"{key}"', BLANK, ":", BLANK, OBJECT)
    return pattern(*before, "{", BLANK, *first, *name, *arguments)
