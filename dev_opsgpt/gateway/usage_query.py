"""What a question about usage says: its parameters as text, read into filters and groups."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.storage.usage import GROUPS, Group

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIX = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_STATUS = re.compile(r"([1-5])([0-9]{2}|xx)")


def read_time(name: str, text: str, now: float) -> float:
    """Unix seconds of ``7d`` (that long ago; also w, h, m, s), of a date or time in ISO 8601
    (in UTC unless it says otherwise), or of Unix seconds. Raises ``InvalidRequest``."""
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    if _UNIX.fullmatch(text):
        return float(text)
    try:
        # A + of the zone that was not escaped has come as a space.
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        message = f"'{name}' must be a time such as 7d, 24h, 2026-01-31 or 2026-01-31T12:00:00Z."
        raise InvalidRequest(message, param=name) from None


def read_status(text: str) -> range:
    """The statuses that ``429`` or ``5xx`` means. Raises ``InvalidRequest``."""
    found = _STATUS.fullmatch(text.lower())
    if found is None:
        message = "'status' must be a status such as 429, or a class such as 5xx."
        raise InvalidRequest(message, param="status")
    if found[2] == "xx":
        return range(int(found[1]) * 100, int(found[1]) * 100 + 100)
    return range(int(text), int(text) + 1)


def read_groups(texts: Sequence[str]) -> list[Group]:
    """The groups that are named, each text one or several with commas between them; each group
    once. Raises ``InvalidRequest``."""
    names = [name.strip() for text in texts for name in text.split(",")]
    found: list[Group] = []
    for name in names:
        group = next((group for group in GROUPS if group == name), None)
        if group is None:
            message = f"'group_by' takes {', '.join(GROUPS)}; not '{name}'."
            raise InvalidRequest(message, param="group_by")
        if group not in found:
            found.append(group)
    return found


def read_name(name: str, text: str | None) -> str | None:
    """A filter's value as it is. Raises ``InvalidRequest`` for one that no database takes."""
    if text is not None and "\0" in text:
        raise InvalidRequest(f"'{name}' must not hold a NUL.", param=name)
    return text
