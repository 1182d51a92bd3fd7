import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from dev_opsgpt.worker.image_header import header_of


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"x" * 60_000}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_four_formats(form: str, fields: dict[str, Any], mode: str) -> None:
    if form == "JPEG" and mode == "RGBA":
        pytest.skip("JPEG has no transparency")
    out = BytesIO()
    Image.new(mode, (321, 123), "red").save(out, form, **fields)
    data = out.getvalue()
    assert header_of(data) == (form, 321, 123)
    for length in range(min(len(data), 24)):
        assert header_of(data[:length]) in (None, (form, 321, 123))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x04ab" + b"cd",
        b"\xff\xd8" + b"\xff" * 100,
        b"RIFF\0\0\0\0WEBPVP9 " + bytes(40),
        b"BM" + bytes(60),
        b"\0\0\0\x20ftypisom" + bytes(40),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_none_of_them(data: bytes) -> None:
    assert header_of(data) is None


def test_sizes_are_read_and_not_believed_in() -> None:
    huge = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 2**31 - 1, 2**31 - 1)
    assert header_of(huge) == ("PNG", 2**31 - 1, 2**31 - 1)
