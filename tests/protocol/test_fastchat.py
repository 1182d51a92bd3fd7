import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.protocol import fastchat
from dev_opsgpt.protocol.fastchat import BadFrame, Frame, FrameDecoder, frame


@given(st.lists(st.text(), max_size=6), st.lists(st.integers(1, 7), min_size=1))
def test_frames_survive_any_cut(texts: list[str], cuts: list[int]) -> None:
    wire = b"".join(frame({"text": text, "error_code": 0}) for text in texts)
    assert wire.count(b"\0") == len(texts), "a NUL in the text is escaped"
    decoder, found = FrameDecoder(), []
    while wire:
        size = cuts[len(found) % len(cuts)]
        found += decoder.feed(wire[:size])
        wire = wire[size:]
    assert [one.text for one in found] == texts
    assert not decoder.partial


def test_a_frame_as_fastchat_sends_it() -> None:
    wire = {
        "text": "Hi",
        "error_code": 0,
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        "finish_reason": "stop",
        "logprobs": {"tokens": ["Hi"], "token_logprobs": [None], "top_logprobs": [{}]},
        "something_new": 1,
    }
    [found] = FrameDecoder().feed(json.dumps(wire).encode() + b"\0")
    assert found.usage == wire["usage"]
    assert found.finish_reason == "stop"
    assert found.logprobs == wire["logprobs"]


def test_empty_frames_are_skipped_and_several_come_at_once() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b'\0{"text":"a"}\0\0{"text":"b"}\0{"te') == [Frame("a"), Frame("b")]
    assert decoder.partial
    assert decoder.feed(b'xt":"c"}\0') == [Frame("c")]
    assert not decoder.partial


@pytest.mark.parametrize(
    "wire", [b"no json\0", b'{"text":1}\0', b'{"text":"\xff"}\0', b"[]\0", b"[" * 200_000 + b"\0"]
)
def test_nonsense_is_one_error(wire: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameDecoder().feed(wire)


def test_a_frame_without_end_is_not_kept_forever() -> None:
    decoder = FrameDecoder(limit=100)
    decoder.feed(b"x" * 100)
    with pytest.raises(BadFrame, match="longer than 100 bytes"):
        decoder.feed(b"x")


def test_registration_as_fschat_sends_it() -> None:
    body = b"""{"worker_name": "http://localhost:21002", "check_heart_beat": true,
        "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
        "multimodal": false}"""
    found = msgspec.json.decode(body, type=fastchat.RegisterWorker)
    assert found.worker_status.model_names == ["m"]
    assert found.opsgpt is None


def test_a_worker_of_ours_that_says_nothing_of_its_abilities() -> None:
    found = msgspec.json.decode(b'{"kind": "opsgpt", "limit": 3}', type=fastchat.OpsgptInfo)
    assert found.abilities == fastchat.Abilities(
        context_length=None, tools=None, vision=None, json_output=None
    )


def test_generation_parameters_as_fschat_sends_them() -> None:
    body = b"""{"model": "m", "prompt": "p", "temperature": 0.7, "logprobs": null, "top_p": 1.0,
        "top_k": -1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "max_new_tokens": 16,
        "echo": false, "stop_token_ids": null, "stop": ["###"]}"""
    found = msgspec.json.decode(body, type=fastchat.GenerateRequest)
    assert (found.stop, found.max_new_tokens, found.echo) == (["###"], 16, False)


def test_status_is_written_as_fastchat_writes_it() -> None:
    status = fastchat.WorkerStatus(["m"], 1, 2)
    assert json.loads(msgspec.json.encode(status)) == {
        "model_names": ["m"],
        "speed": 1,
        "queue_length": 2,
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"worker_name":"http://a:1","queue_length":-1}',
        b'{"worker_name":"","queue_length":0}',
        b'{"worker_name":"http://a:1","queue_length":1e999}',
        b'{"worker_name":"http://a:1"}',
    ],
)
def test_beats_out_of_range(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=fastchat.HeartBeat)
