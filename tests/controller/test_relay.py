"""The controller as a worker of another: raw frames through, errors as frames."""

import json
from typing import Any

import pytest

from dev_opsgpt.controller.peers import PeerFailed
from dev_opsgpt.controller.relay import whole_frames
from dev_opsgpt.protocol.fastchat import FrameDecoder

from .conftest import AUTH, SECRET, Api, Serve, StandIn, eventually

BODY = b'{"model": "m",   "prompt": "kept as it came", "temperature": 0.70}'


async def attach(api: Api, serve: Serve, worker: StandIn) -> str:
    address = await serve(worker.app)
    await api.register(address, "m")
    return address


async def generate(api: Api, body: bytes = BODY) -> bytes:
    answer = await api.client.post(api.url + "/worker_generate_stream", content=body, headers=AUTH)
    assert answer.status_code == 200
    return answer.content


async def test_bytes_go_through(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn()
    address = await attach(api, serve, worker)
    wire = b'{"text":"a","error_code":0}\0{"text":"a  b",  "error_code":0,"new":[1]}\0'
    worker.pieces = [wire[:10], wire[10:40], wire[40:]]
    assert await generate(api) == wire
    assert worker.generated == [BODY]
    assert worker.asked[0]["authorization"] == f"Bearer {SECRET}"
    assert (await api.workers())[address]["queue_length"] == 1, "counted until the next beat"


async def test_nobody_serves_the_model(controller: Any) -> None:
    api = await controller()
    [frame] = FrameDecoder().feed(await generate(api))
    assert frame.error_code == 50005
    assert "'m'" in frame.text


async def test_the_worker_is_gone(controller: Any) -> None:
    api = await controller()
    await api.register("http://127.0.0.1:9", "m")
    [frame] = FrameDecoder().feed(await generate(api))
    assert frame.error_code == 50006


async def test_the_worker_refuses(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn()
    worker.status_code = 429
    await attach(api, serve, worker)
    [frame] = FrameDecoder().feed(await generate(api))
    assert frame.error_code == 50006
    assert "429" in frame.text


async def test_the_worker_dies_in_the_middle_of_a_frame(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn()
    worker.pieces = [b'{"text":"a","error_code":0}\0{"text":"hal']
    worker.cut = True
    await attach(api, serve, worker)
    first, second = FrameDecoder().feed(await generate(api))
    assert (first.text, first.error_code) == ("a", 0)
    assert second.error_code == 50006


async def test_a_client_that_leaves_frees_the_worker(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn()
    worker.endless = True
    await attach(api, serve, worker)
    url = api.url + "/worker_generate_stream"
    async with api.client.stream("POST", url, content=BODY, headers=AUTH) as answer:
        assert await anext(answer.aiter_raw())
        assert not worker.left.is_set()
    await eventually(worker.left.is_set)


async def test_a_bad_body_is_a_400(controller: Any) -> None:
    api = await controller()
    answer = await api.post("/worker_generate_stream", {"prompt": "p"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("pieces", "frames"),
    [
        ([b"a\0b\0"], [b"a\0b\0"]),
        ([b"a", b"b\0c", b"d"], [b"ab\0", b"cd\0"]),
        ([b"\0", b"a"], [b"\0", b"a\0"]),
        ([], []),
    ],
)
async def test_whole_frames(pieces: list[bytes], frames: list[bytes]) -> None:
    async def source() -> Any:
        for piece in pieces:
            yield piece

    assert [piece async for piece in whole_frames(source())] == frames


async def test_a_frame_without_end_is_cut_off() -> None:
    async def source() -> Any:
        while True:
            yield b"x" * 1_000_000

    with pytest.raises(PeerFailed, match="longer than"):
        _ = [piece async for piece in whole_frames(source())]


async def test_our_relay_behind_our_relay(controller: Any, serve: Serve) -> None:
    low, high, worker = await controller(), await controller(), StandIn()
    await attach(low, serve, worker)
    await high.register(low.url, "m")
    assert json.loads((await generate(high))[:-1])["text"] == "a"
