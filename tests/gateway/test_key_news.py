"""Gateway processes that tell each other that keys have changed; here they are parts of one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev_opsgpt.gateway import key_news as module
from dev_opsgpt.gateway.key_news import KeyNews
from dev_opsgpt.storage.errors import StorageError


class Peers:
    """Ends with process ids of the test's choice; ``looked`` tells who has looked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.looked: list[int] = []
        self.broken: set[int] = set()
        self.ends: list[KeyNews] = []
        self._monkeypatch = monkeypatch

    def open(self, pid: int) -> KeyNews:
        async def look() -> None:
            await asyncio.sleep(0)
            if pid in self.broken:
                raise StorageError("away")
            self.looked.append(pid)

        self._monkeypatch.setattr("os.getpid", lambda: pid)
        self.ends.append(KeyNews(self.folder, look))
        self.ends[-1].open()
        return self.ends[-1]


@pytest.fixture(params=["short", "x" * 120])
async def peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Peers]:
    found = Peers(tmp_path / request.param, monkeypatch)
    yield found
    for end in found.ends:
        await end.close()


async def test_all_others_have_looked_when_it_is_told(peers: Peers) -> None:
    first = peers.open(1)
    await first.tell()
    assert peers.looked == []
    second, _ = peers.open(2), peers.open(3)
    await first.tell()
    assert sorted(peers.looked) == [2, 3]
    await asyncio.gather(second.tell(), first.tell())
    assert sorted(peers.looked) == [1, 2, 2, 3, 3, 3]


async def test_one_that_is_gone_is_not_waited_for(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 600)
    first, second = peers.open(1), peers.open(2)
    await second.close()
    assert [path.name for path in peers.folder.iterdir()] == ["keys-1"]
    await first.tell()
    # One that was killed has left its file, which the next with its number takes.
    third = peers.open(3)
    assert third._socket is not None
    asyncio.get_running_loop().remove_reader(third._socket)
    third._socket.close()
    third._socket = None
    await first.tell()
    assert [path.name for path in peers.folder.iterdir()] == ["keys-1"]
    (peers.folder / "keys-4").touch()
    peers.open(4)
    await first.tell()
    assert peers.looked == [4]


async def test_one_that_cannot_look_is_waited_for_a_while(
    peers: Peers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    first, second, _ = peers.open(1), peers.open(2), peers.open(3)
    peers.broken = {2}
    await first.tell()
    assert peers.looked == [3]
    assert "1 other gateway processes have not read the keys" in caplog.text
    assert second._socket is not None
    second._send(b"nonsense", 1, "keys-1")
    second._send(module.LOOKED, 77, "keys-1")
    await first.tell()
    assert peers.looked == [3, 3]


async def test_where_there_can_be_no_socket_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    async def look() -> None:
        return

    end = KeyNews(tmp_path / "file", look)
    end.open()
    assert "a little later" in caplog.text
    await end.tell()
    await end.close()
