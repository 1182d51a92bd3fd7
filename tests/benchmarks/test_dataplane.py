"""A whole measurement, of contenders made for it; and the check that each has to pass."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from benchmarks import dataplane, fastchat_mock, mock
from benchmarks.check import check, content, expected
from benchmarks.contender import Kind, Target
from benchmarks.contenders.direct import Direct
from benchmarks.dataplane import Scenario
from benchmarks.load import LoadFailed
from benchmarks.mock import Answer, Canned, json_answer, stream
from benchmarks.processes import StartFailed
from benchmarks.upstream import ANSWER_BYTES, CHAT, answer, text

PACED = Scenario("C", "a few streams", "paced", 4)


class Missing(Direct):
    name = "missing"

    def start(self, upstream: Target, folder: Path) -> None:
        raise StartFailed("nowhere to be had")


class Elsewhere(Direct):
    """Leads to a server with another answer."""

    name = "elsewhere"

    def start(self, upstream: Target, folder: Path) -> None:
        self.url = upstream.url.replace("/v1", "/v2")


class Heavy(Direct):
    name = "heavy"
    heavy = True


def quiet(_: str) -> None:
    """Says nothing."""


@contextmanager
def serving(answers: Mapping[bytes, Answer]) -> Iterator[str]:
    """A server in a thread, for a client that blocks."""
    loop = asyncio.new_event_loop()

    async def start() -> asyncio.Server:
        return await loop.create_server(lambda: Canned(answers, json_answer(b"{}")), "127.0.0.1", 0)

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def at(url: str, *, rewrites: bool = False) -> Direct:
    contender = Direct()
    contender.url = url
    contender.rewrites = rewrites
    return contender


def test_a_scenario_from_start_to_end(tmp_path: Path) -> None:
    said: list[str] = []
    turns = dataplane.measure(
        PACED,
        {"direct": Direct, "missing": Missing, "elsewhere": Elsewhere, "heavy": Heavy},
        tmp_path,
        rounds=1,
        seconds=1,
        say=said.append,
    )
    found, left_out = turns.figures(), turns.left_out
    assert sorted(found) == ["direct", "heavy"]
    assert turns.idle == 0
    for figures in found.values():
        assert figures.requests >= PACED.concurrent
        assert (figures.cpu, figures.failed) == (0, 0)
        assert 0 < figures.first < figures.p50 <= figures.p99
        # Milliseconds; timers may ring a little early.
        assert figures.p50 > 990 * (mock.SHAPES["paced"].events - 1) * mock.SHAPES["paced"].pace
    assert left_out["missing"] == "nowhere to be had"
    assert "does not pass" in left_out["elsewhere"]
    assert any("round 1 of 1" in line for line in said)


def test_a_contender_that_fails_later_is_left_out(tmp_path: Path) -> None:
    turns = dataplane.Turns(PACED, tmp_path, quiet)
    answers = {CHAT: stream(mock.events(50), 0.0)}
    with serving(answers) as url:
        turns.start("direct", Direct(), Target(url, "paced"))
        assert turns.found == {"direct": []}
    turns.round("round 1", 1)
    assert turns.found == {}
    assert "refused" in turns.left_out["direct"]


@pytest.mark.parametrize("kind", ["plain", "burst"])
def test_every_byte_has_to_be_the_upstream_s(kind: Kind) -> None:
    body = expected(kind)
    spaced = body.replace(b'{"id"', b'{ "id"')
    lost = body.replace(b" word007", b"").replace(b"words", b"word")
    for sent, rewrites, passes in [
        (body, False, True),
        (spaced, False, False),
        (spaced, True, True),
        (lost, True, False),
        (b"data: nonsense\n\n", True, False),
        (b"{}", True, False),
    ]:
        with serving({CHAT: json_answer(sent)}) as url:
            contender = at(url, rewrites=rewrites)
            if passes:
                check(contender, kind)
            else:
                with pytest.raises(LoadFailed, match="does not pass"):
                    check(contender, kind)


def test_nobody_answers_the_check() -> None:
    with serving({}) as url:
        pass
    with pytest.raises(LoadFailed, match="does not answer"):
        check(at(url), "plain")


def test_the_canned_answer() -> None:
    assert len(answer()) == ANSWER_BYTES
    assert content(answer()) == (text(), "stop")


@pytest.mark.parametrize("kind", ["burst", "paced"])
def test_fastchat_s_mock_says_the_same(kind: Kind) -> None:
    shape = mock.SHAPES[kind]
    frames = [msgspec.json.decode(frame[:-1]) for frame in fastchat_mock.frames(shape.events)]
    assert len(frames) == shape.events
    assert (frames[-1]["text"], frames[-1]["finish_reason"]) == content(expected(kind))
    texts = [frame["text"] for frame in frames]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_fastchat_s_mock_answers_what_a_worker_is_asked() -> None:
    plain = fastchat_mock.answers("plain")
    assert b"/worker_generate_stream" not in plain
    body = plain[b"/worker_generate"]
    assert isinstance(body, bytes)
    assert msgspec.json.decode(body.partition(b"\r\n\r\n")[2])["text"] == text()
