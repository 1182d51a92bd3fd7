"""Where a JSON object ends, found while its text is still coming."""

import re

_STEP = re.compile(r'[{}\[\]"]')
_STRING_STEP = re.compile(r'["\\]')


class JsonSpan:
    """Follows brackets and strings, of which ``depth`` brackets are open at the beginning; it does
    not check what is between them."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._string = False
        self._escaped = False

    def end(self, text: str, start: int = 0) -> int | None:
        """The place in ``text`` after the bracket that closes the last open one, looking from
        ``start`` on; None where there is none. Then all of the text has been read, and what comes
        after it is to be given next."""
        at = start
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_STRING_STEP if self._string else _STEP).search(text, at)
            if found is None:
                return None
            at = found.end()
            if self._step(found[0]) and self._depth <= 0:
                return at
        return None

    def _step(self, sign: str) -> bool:
        """Takes a bracket or a quote, and says whether it closed something."""
        if sign == '"':
            self._string = not self._string
        elif sign == "\\":
            self._escaped = True
        elif sign in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            return True
        return False
