"""The images of a chat request, made ready for llama.cpp."""

import asyncio
import base64

from dev_opsgpt.engines.image_pixels import LOW_SIDE, SIDE, BrokenImage, pixels_of
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.worker.image_fetch import Fetcher
from dev_opsgpt.worker.images import (
    FoundImage,
    ImageRules,
    broken_image,
    check_image,
    data_of,
    images_of,
    is_address,
)


class ImageReader:
    """Reads the images of requests under ``rules``; ``fetcher`` is for those given by address,
    where that is allowed."""

    def __init__(self, rules: ImageRules, fetcher: Fetcher | None = None) -> None:
        self._rules = rules
        self._fetcher = fetcher or Fetcher(rules.size) if rules.addresses else None
        # One decoder at a time: an image takes far more memory open than it does as a file.
        self._decoding = asyncio.Lock()

    async def read(self, request: ChatRequest) -> list[str]:
        """Each image as the base64 of a PNM file, in the order of the messages. Raises
        ``InvalidRequest`` that names the part."""
        return [await self._one(found) for found in images_of(request, self._rules)]

    async def _one(self, found: FoundImage) -> str:
        url = found.part.image_url.url
        if self._fetcher is not None and is_address(url):
            data = await self._fetcher.fetch(url, found.path)
        else:
            data = data_of(url, found.path, self._rules)
        check_image(data, found.path, self._rules)
        side = LOW_SIDE if found.part.image_url.detail == "low" else SIDE
        async with self._decoding:
            try:
                return await asyncio.to_thread(_encoded, data, side, self._rules.pixels)
            except BrokenImage:
                raise broken_image(found.path) from None


def _encoded(data: bytes, side: int, most: int) -> str:
    return base64.b64encode(pixels_of(data, side=side, most=most)).decode()
