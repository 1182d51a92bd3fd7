"""An answer that is sent piece by piece for as long as its client stays."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Stream(StreamingResponse):
    """Sends what a generator gives, and closes the generator at once when the client leaves, even
    if it is waiting for its next piece or the client for its last."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(pieces, media_type=media_type, headers={"cache-control": "no-store"})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        sender = asyncio.ensure_future(self.stream_response(send))
        leaver = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sender, leaver}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sender.cancel()
            leaver.cancel()
            await asyncio.wait({sender, leaver})
            await self._pieces.aclose()
        if not sender.cancelled():
            sender.result()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
