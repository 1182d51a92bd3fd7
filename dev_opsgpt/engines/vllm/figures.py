"""vLLM's metrics, in Prometheus's text format: the load that is read from them, and the labels that
are added to them. Pure."""

import re
from collections.abc import Iterator, Mapping

RUNNING = b"vllm:num_requests_running"
WAITING = b"vllm:num_requests_waiting"
ENDED = b"vllm:request_success_total"

_SAMPLE = re.compile(rb"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?(\s+\S.*)$")


def load_of(page: bytes) -> tuple[int, int, int]:
    """The requests that run, that wait, and that have come so far, of all of vLLM's engines
    together."""
    running, waiting = _total(page, RUNNING), _total(page, WAITING)
    return running, waiting, _total(page, ENDED) + running + waiting


def labelled(page: bytes, labels: Mapping[str, str]) -> bytes:
    """The page with some labels put before those of every sample. What has one of these names
    already is called ``exported_...``, as Prometheus does."""
    added = b",".join(b'%s="%s"' % (name.encode(), _escaped(v)) for name, v in labels.items())
    taken = re.compile(rb'(^|,)(?=(?:%s)=")' % b"|".join(name.encode() for name in labels))
    lines = (_line(line, added, taken) for line in page.splitlines())
    return b"\n".join(lines) + b"\n"


def _line(line: bytes, added: bytes, taken: "re.Pattern[bytes]") -> bytes:
    found = _SAMPLE.match(line)
    if line.startswith(b"#") or found is None:
        return line
    own = taken.sub(rb"\1exported_", found[2] or b"").strip(b",")
    return b"%s{%s}%s" % (found[1], b",".join(part for part in (added, own) if part), found[3])


def _total(page: bytes, name: bytes) -> int:
    return int(sum(_values(page, name)))


def _values(page: bytes, name: bytes) -> Iterator[float]:
    for line in page.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in (b"{", b" "):
            value = line.rpartition(b"}")[2] if b"}" in line else line[len(name) :]
            yield float(value.split()[0])


def _escaped(value: str) -> bytes:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").encode()
