"""Whether a contender passes the upstream's answer on: a fast router that loses some of it shall
not win."""

import urllib.request
from typing import Any

import msgspec

from benchmarks import mock, upstream
from benchmarks.contender import Contender, Kind
from benchmarks.load import LoadFailed, request_body
from dev_opsgpt.protocol.sse import Decoder

TIMEOUT = 30.0


def check(contender: Contender, kind: Kind) -> None:
    """One request by a client that is not ours. Every byte has to be the upstream's; of a
    contender that writes answers anew, the text and the reason why it ends.
    Raises ``LoadFailed``."""
    body = ask(contender, stream=kind != "plain")
    wanted = expected(kind)
    try:
        same = body == wanted or (contender.rewrites and content(body) == content(wanted))
    except (msgspec.MsgspecError, LookupError, TypeError):
        same = False
    if not same:
        raise LoadFailed(f"{contender.name} does not pass the upstream's answer on: {body[:300]!r}")


def ask(contender: Contender, *, stream: bool) -> bytes:
    """The body of an answer. Raises ``LoadFailed``."""
    request = urllib.request.Request(
        f"{contender.url}/chat/completions",
        data=request_body(stream=stream),
        headers={"content-type": "application/json", **contender.headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            return bytes(reply.read())
    except OSError as error:
        raise LoadFailed(f"{contender.name} does not answer: {error}") from None


def expected(kind: Kind) -> bytes:
    """The body that an upstream of that kind sends."""
    if kind == "plain":
        return upstream.answer()
    return b"".join(mock.events(mock.SHAPES[kind].events))


def content(body: bytes) -> tuple[str, str]:
    """The text of an answer, streamed or not, and its ``finish_reason``."""
    if body.startswith(b"{"):
        choice = msgspec.json.decode(body)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]
    text, reason = "", ""
    for data in Decoder().feed(body):
        for choice in _choices(data):
            text += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    return text, reason


def _choices(data: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [] if data == b"[DONE]" else msgspec.json.decode(data)["choices"]
    return found
