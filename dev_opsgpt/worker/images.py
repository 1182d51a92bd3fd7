"""The images of a chat request: where they are, what is allowed of them, and the bytes of a
``data:`` URL. Pure."""

import binascii
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, ImagePart
from dev_opsgpt.worker.image_header import header_of

# Chat templates and models know images in these messages only.
_ROLES = frozenset({"user", "tool"})
_FORMATS = "PNG, JPEG, WebP or GIF"


class ImageRules(msgspec.Struct, frozen=True):
    """What is allowed: images of a request, bytes and pixels of each, and whether one may be
    given by its address, to be fetched."""

    count: int = 16
    size: int = 20 * 2**20
    pixels: int = 50_000_000
    addresses: bool = False


class FoundImage(NamedTuple):
    """An image of a request, and the path of its URL there."""

    path: str
    part: ImagePart


def images_of(request: ChatRequest, rules: ImageRules) -> list[FoundImage]:
    """The images in the order of the messages. Raises ``InvalidRequest`` where there are too many
    and ``Unsupported`` for one in a message that cannot have any."""
    found = list(_find(request))
    if len(found) > rules.count:
        path = found[rules.count].path
        message = f"The request has {len(found)} images; at most {rules.count} are taken."
        raise InvalidRequest(message, param=path)
    return found


def _find(request: ChatRequest) -> Iterator[FoundImage]:
    for number, message in enumerate(request.messages):
        if not isinstance(message.content, list):
            continue
        for place, part in enumerate(message.content):
            if not isinstance(part, ImagePart):
                continue
            where = f"messages.{number}.content.{place}"
            if message.role not in _ROLES:
                problem = f"A message of role '{message.role}' cannot hold an image."
                raise Unsupported(problem, param=where)
            yield FoundImage(f"{where}.image_url.url", part)


def is_address(url: str) -> bool:
    """Whether a URL says where an image is, and does not hold it."""
    return url[:8].lower().startswith(("http://", "https://"))


def data_of(url: str, path: str, rules: ImageRules) -> bytes:
    """The bytes in a ``data:`` URL. Raises ``InvalidRequest`` at ``path`` for any other URL and
    for what is not whole base64."""
    head, comma, text = url.partition(",")
    kind, *parameters = head.lower().split(";")
    if not kind.startswith("data:") or not comma:
        allowed = "a data: URL (data:image/png;base64,...)"
        problem = "an image must be given as " + allowed
        raise _refused(path, problem + (" or by its address" if rules.addresses else ""))
    if not kind.startswith("data:image/"):
        raise _refused(path, "the data: URL must be of an image (data:image/png;base64,...)")
    if "base64" not in parameters:
        raise _refused(path, "the data: URL must hold base64 (data:image/png;base64,...)")
    if len(text) // 4 * 3 > rules.size + 2:
        raise _too_large(path, rules)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise _refused(path, f"the image is not valid base64: {error}") from None


def check_image(data: bytes, path: str, rules: ImageRules) -> None:
    """Raises ``InvalidRequest`` at ``path`` for an image of another format than ours, or with more
    bytes or pixels than allowed. Says nothing of whether the rest of it is sound."""
    if len(data) > rules.size:
        raise _too_large(path, rules)
    header = header_of(data)
    if header is None:
        raise _refused(path, f"the data is not an image: {_FORMATS} are read")
    if not header.width or not header.height:
        raise _refused(path, "the image has no pixels")
    if header.width * header.height > rules.pixels:
        raise _refused(
            path,
            f"the image has {header.width} x {header.height} pixels; "
            f"at most {rules.pixels} pixels are taken",
        )


def broken_image(path: str) -> InvalidRequest:
    """The error for an image whose header was right and whose rest is not."""
    return _refused(path, "the image is damaged or incomplete")


def _too_large(path: str, rules: ImageRules) -> InvalidRequest:
    return _refused(path, f"the image is too large; at most {rules.size} bytes are taken")


def _refused(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"'{path}': {problem}.", param=path, code="invalid_image")
