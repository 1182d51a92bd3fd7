import base64
import struct
from typing import Any

import pytest

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.worker.images import ImageRules, check_image, data_of, images_of, is_address

RULES = ImageRules(count=2, size=1000, pixels=10_000)
PATH = "messages.0.content.0.image_url.url"


def request(*contents: Any, role: str = "user") -> ChatRequest:
    messages = [{"role": role, "content": content} for content in contents]
    return ChatRequest.model_validate({"model": "m", "messages": messages})


def part(url: str = "data:image/png;base64,AAAA") -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", width, height)


def test_images_are_found_in_order() -> None:
    words = {"type": "text", "text": "a"}
    found = images_of(request("hi", [words, part("a:b")], [part("c:d")]), RULES)
    assert [(one.path, one.part.image_url.url) for one in found] == [
        ("messages.1.content.1.image_url.url", "a:b"),
        ("messages.2.content.0.image_url.url", "c:d"),
    ]
    assert images_of(request("hi"), RULES) == []


def test_too_many_and_in_the_wrong_place() -> None:
    with pytest.raises(InvalidRequest, match="3 images; at most 2") as caught:
        images_of(request([part(), part()], [part()]), RULES)
    assert caught.value.param == "messages.1.content.0.image_url.url"
    with pytest.raises(Unsupported) as caught:
        images_of(request([part()], role="assistant"), RULES)
    assert caught.value.param == "messages.0.content.0"


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:image/PNG;a=b;Base64,"])
def test_data_urls(head: str) -> None:
    assert data_of(head + base64.b64encode(b"hello").decode(), PATH, RULES) == b"hello"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "data: URL"),
        ("aGVsbG8=", "data: URL"),
        ("/etc/passwd", "data: URL"),
        ("file:///etc/passwd", "data: URL"),
        ("https://example.com/a.png", "data: URL"),
        ("data:image/png;base64", "data: URL"),
        ("data:,aGVsbG8=", "must be of an image"),
        ("data:image/png,aGVsbG8=", "must hold base64"),
        ("data:image/png;base64,aGVsbG8", "not valid base64"),
        ("data:image/png;base64,aGVs\nbG8=", "not valid base64"),
        ("data:image/png;base64,aGVsbG8=é", "not valid base64"),
        ("data:image/png;base64," + "A" * 2000, "at most 1000 bytes"),
    ],
)
def test_other_urls(url: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        data_of(url, PATH, RULES)
    assert caught.value.param == PATH
    assert caught.value.code == "invalid_image"
    assert len(caught.value.message) < 300


def test_addresses_are_named_where_they_are_allowed() -> None:
    assert is_address("HTTPS://example.com/a.png")
    assert not is_address("httpx://example.com")
    with pytest.raises(InvalidRequest, match="or by its address"):
        data_of("ftp://example.com/a", PATH, ImageRules(addresses=True))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "is not an image"),
        (png(101, 100), "101 x 100 pixels; at most 10000"),
        (png(2**31, 2**31), "at most 10000 pixels"),
        (png(0, 5), "no pixels"),
        (png(5, 5) + bytes(1000), "at most 1000 bytes"),
    ],
)
def test_bounds(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        check_image(data, PATH, RULES)
    assert caught.value.param == PATH


def test_within_bounds() -> None:
    check_image(png(100, 100), PATH, RULES)
