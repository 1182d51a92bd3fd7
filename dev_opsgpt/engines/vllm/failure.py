"""Why vLLM ended, in one line for a person, out of all that it wrote. Pure."""

import re
from collections.abc import Sequence

from dev_opsgpt.transport.masking import mask

_LONGEST = 400
# What vLLM puts before a line: the process, the level, the time, the file.
_PREFIX = re.compile(
    r"^(?:\(\S+ pid=\d+\) ?)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.]+ \[[^\]]*\]\s?)?"
)
_RAISED = re.compile(r"^((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt))(?:: (.*))?$")
_PARSER = re.compile(r"^\S*: error: (.+)$")
_MEMORY = re.compile(
    r"(?i)out of memory|not enough memory|no available memory|can't allocate memory"
    r"|defaultcpuallocator|less than (?:desired|requested)|MemoryError"
)
_PORT = re.compile(r"(?i)address already in use")
# What only says that something else failed, which is told before it.
_FOLLOWS = re.compile(
    r"(?i)engine core initialization failed|see root cause above|engine process failed to start"
    r"|engine core proc|EngineDeadError|worker proc .* died|cancelled"
)
# What pydantic says before what is wrong.
_VALIDATION = re.compile(r"^\d+ validation errors? for \w+ (?:Value error, )?")
_PLAIN = {"ValueError", "RuntimeError", "OSError", "Exception", "AssertionError", "ValidationError"}
_SIGNALS = {9: "it was killed (kill -9, or the system had no memory left)", 11: "it crashed"}
PORT_TAKEN = "its port was taken by another program"


def reason_of(lines: Sequence[str], code: int) -> str:
    """The reason in one line, secrets masked. ``code`` is the exit code as a shell gives it."""
    plain = [_PREFIX.sub("", line).rstrip() for line in lines]
    found = _parser_error(plain) or _memory(plain) or _raised(plain)
    if found is None:
        found = _by_code(code, plain)
    text = mask(" ".join(found.split()))
    return f"vLLM: {text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}"


def _parser_error(lines: Sequence[str]) -> str | None:
    return next((found[1] for line in lines if (found := _PARSER.match(line))), None)


def _memory(lines: Sequence[str]) -> str | None:
    """A lack of memory, which leads to many other errors; or a port that is taken."""
    for line in lines:
        if _PORT.search(line):
            return PORT_TAKEN
        found = _RAISED.match(line)
        if found and _MEMORY.search(line):
            return f"out of memory: {found[2] or found[1]}"
    return None


def _raised(lines: Sequence[str]) -> str | None:
    """The first error that was raised and not only followed from another one."""
    found = [(match, at) for at, line in enumerate(lines) if (match := _RAISED.match(line))]
    own = [one for one in found if not _FOLLOWS.search(one[0][0])] or found
    if not own:
        return None
    # Of one traceback the last line counts, of several the first that came to its end.
    match, at = own[0]
    text = match[2] or ""
    more = _continued(lines, at + 1)
    text = f"{text} {more}".strip() if more else text
    name = match[1].rpartition(".")[2]
    text = _VALIDATION.sub("", text)
    if not text:
        return name
    return text if name in _PLAIN else f"{name}: {text}"


def _continued(lines: Sequence[str], start: int) -> str:
    """The rest of a message of several lines, such as a validation's: what is wrong stands on its
    later lines."""
    rest = []
    for line in lines[start : start + 4]:
        if not line.startswith("  ") or line.lstrip().startswith(("File ", "For further")):
            break
        rest.append(line.strip())
    return " ".join(rest)


def _by_code(code: int, lines: Sequence[str]) -> str:
    number = code - 128 if code > 128 else -code if code < 0 else 0
    if number:
        return _SIGNALS.get(number, f"it was ended by signal {number}")
    said = [line for line in lines if line.strip()]
    return f"it ended with code {code}; its last words: {said[-1] if said else 'none'}"
