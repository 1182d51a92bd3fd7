"""Server-sent events, as OpenAI streams them: ``data: <JSON>`` and an empty line.

Source: the WHATWG HTML standard, section "Server-sent events". Only the ``data`` field is used
by OpenAI's dialect; comments and other fields are skipped, as the standard says.
"""

from collections.abc import Iterator

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = "text/event-stream; charset=utf-8"


def event(data: bytes) -> bytes:
    """One event that carries ``data`` (one line of JSON)."""
    return b"data: %b\n\n" % data


def whole_events(data: bytes) -> int:
    """How many bytes of ``data`` are whole events; what comes after them has no end yet.

    An error event is put only after whole ones, so that it never lands inside another.
    """
    if data.endswith(b"\n\n"):
        return len(data)
    plain, windows = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    if plain > windows:
        return plain + 2
    return windows + 4 if windows >= 0 else 0


class Decoder:
    """Cuts a byte stream into the ``data`` payloads of its events, whatever the pieces are."""

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Gives the payload of each event that ``piece`` completes."""
        lines = (self._line + piece).split(b"\n")
        self._line = lines.pop()
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
