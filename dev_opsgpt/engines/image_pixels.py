"""Decodes an image into plain pixels, with Pillow.

llama.cpp has decoders of its own, written for files that one trusts, and hands what they do not
know to ffmpeg. So nothing of a client's file reaches it: Pillow, which is made and watched for
hostile files, decodes it whole, and what is passed on is a format without any compression.
"""

import struct
import zlib
from io import BytesIO

from PIL import Image, ImageOps

from dev_opsgpt.worker.image_header import header_of

# The longest side of what a model is shown, as at OpenAI: of any image, and of one that is asked
# for with ``detail`` "low". Models shrink further by themselves.
SIDE, LOW_SIDE = 2048, 512
# What Pillow raises for files that are broken in one way or another.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class BrokenImage(Exception):
    """The image cannot be decoded."""


def pixels_of(data: bytes, *, side: int, most: int) -> bytes:
    """The image as a PNM file (``P6``: 8-bit RGB), shrunk to ``side`` pixels where it is longer,
    turned as its camera says, transparent parts on white; of several frames the first.

    ``data`` has a header that was found good; ``most`` bounds the pixels of what is decoded all
    the same, for a frame may be larger than its file's header says. Raises ``BrokenImage``.
    """
    header = header_of(data)
    if header is None:
        raise BrokenImage
    try:
        with Image.open(BytesIO(data), formats=(header.format,)) as whole:
            whole.verify()  # checksums, of PNG: its pixels can be there and its end missing
        with Image.open(BytesIO(data), formats=(header.format,)) as image:
            if image.width * image.height > most:
                raise BrokenImage
            # Decodes all of it, a JPEG at a smaller scale where that is enough.
            image.draft("RGB", (side, side))
            image.load()
            shown = _on_white(ImageOps.exif_transpose(image))
    except _BROKEN:
        raise BrokenImage from None
    shown.thumbnail((side, side))
    return b"P6\n%d %d\n255\n" % shown.size + shown.tobytes()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    below = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(below, layer).convert("RGB")
