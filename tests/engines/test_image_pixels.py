from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from dev_opsgpt.engines.image_pixels import LOW_SIDE, SIDE, BrokenImage, pixels_of


def file_of(image: Image.Image, form: str = "PNG", **fields: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **fields)
    return out.getvalue()


def shown(data: bytes, side: int = SIDE, most: int = 10**7) -> Image.Image:
    return Image.open(BytesIO(pixels_of(data, side=side, most=most)))


def test_what_is_passed_on_is_plain_pixels() -> None:
    assert pixels_of(file_of(Image.new("RGB", (2, 1), "red")), side=9, most=9) == (
        b"P6\n2 1\n255\n\xff\0\0\xff\0\0"
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes(mode: str) -> None:
    grey = 255 if mode == "1" else 128
    source = Image.new("L", (4, 4), grey).convert(mode) if mode != "I;16" else None
    data = file_of(source or Image.new("I;16", (4, 4), 128 * 257))
    assert shown(data).getpixel((0, 0)) == (grey, grey, grey)


def test_transparent_is_white_and_print_colours_are_turned() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert shown(file_of(clear)).getpixel((0, 0)) == (255, 255, 255)
    cyan = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert shown(file_of(cyan, "JPEG")).getpixel((0, 0)) == (255, 0, 0)


def test_a_photograph_is_turned_as_its_camera_says() -> None:
    image = Image.new("RGB", (40, 20), "blue")
    exif = image.getexif()
    exif[0x0112] = 6
    assert shown(file_of(image, "JPEG", exif=exif)).size == (20, 40)


def test_of_several_frames_the_first() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for form in ("GIF", "WEBP"):
        data = file_of(first, form, save_all=True, append_images=[second], lossless=True)
        assert shown(data).getpixel((0, 0)) == (255, 0, 0)


def test_large_ones_are_shrunk() -> None:
    noise = Image.effect_noise((3000, 1000), 50)
    for form in ("PNG", "JPEG"):
        data = file_of(noise, form)
        assert shown(data).size[0] == SIDE
        assert shown(data, LOW_SIDE).size == (LOW_SIDE, 171)
    assert shown(file_of(Image.new("L", (8, 8))), 512).size == (8, 8)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_cut_anywhere_it_is_broken(form: str) -> None:
    data = file_of(Image.effect_noise((60, 40), 80).convert("RGB"), form)
    # The last bytes of three of them only say "end".
    rest = {"PNG": 12, "WEBP": 0, "JPEG": 2, "GIF": 3}[form]
    end = len(data) - rest
    for cut in [*range(0, end, max(1, end // 150)), end - 1]:
        with pytest.raises(BrokenImage):
            pixels_of(data[:cut], side=SIDE, most=10**7)


def test_a_wrong_checksum_and_a_frame_beyond_its_file() -> None:
    data = bytearray(file_of(Image.new("RGB", (4, 4), "red")))
    data[-20] ^= 1
    with pytest.raises(BrokenImage):
        pixels_of(bytes(data), side=SIDE, most=10**7)
    gif = bytearray(file_of(Image.new("L", (4, 4)), "GIF"))
    at = gif.index(b",", 13)
    gif[at + 5 : at + 9] = b"\xff\x7f\xff\x7f"  # 32767 x 32767 on a page of 4 x 4
    with pytest.raises(BrokenImage):
        pixels_of(bytes(gif), side=SIDE, most=10**6)
    with pytest.raises(BrokenImage):
        pixels_of(b"hello", side=SIDE, most=10**6)
