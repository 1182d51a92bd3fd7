"""Sizes of memory as people write them."""

import re

SIZE_PATTERN = r"(?i)^\s*\d+(\.\d+)?\s*([KMGT]i?)?B?\s*$"
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def bytes_of(text: str) -> int:
    """The bytes of a size such as ``12GiB``, ``1.5 GB`` or ``500M``. KiB, MiB, GiB and TiB, and a
    letter alone, count in powers of 1024, the others in powers of 1000. Raises ``ValueError``."""
    found = _PARTS.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no size such as 12GiB: {text!r}")
    number, letter, binary = found.groups()
    alone = not text.strip().lower().endswith("b")
    base = 1024 if binary or alone else 1000
    return int(float(number) * base ** " KMGT".index(letter.upper() or " "))
