"""``/worker_generate_stream``: the controller as a worker of another controller.

The bytes of the chosen worker go through as they are, whole frames at a time, so that an error
frame after a cut stream never lands in the middle of another.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from dev_opsgpt.controller.peers import PeerFailed, Peers
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.protocol.fastchat import MAX_FRAME, NO_WORKER, WORKER_TIMEOUT, frame

logger = logging.getLogger(__name__)


async def relay(
    registry: Registry, peers: Peers, model: str, body: bytes
) -> AsyncGenerator[bytes, None]:
    """The answer to ``body`` by a worker that serves ``model``, or one frame with an error."""
    worker = registry.dispatch(model)
    if worker is None:
        yield frame({"text": f"No worker serves the model {model!r}.", "error_code": NO_WORKER})
        return
    try:
        async with aclosing(whole_frames(peers.generate(worker, body))) as pieces:
            async for piece in pieces:
                yield piece
    except PeerFailed as error:
        logger.warning("relay to %s failed: %s", worker.address, error)
        text = f"The worker of the model {model!r} failed: {error}."
        yield frame({"text": text, "error_code": WORKER_TIMEOUT})


async def whole_frames(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The source's bytes, cut after the last complete frame of each piece; one frame that is left
    open at the regular end is closed, as FastChat does. Raises ``PeerFailed`` for one too long."""
    rest = bytearray()
    async with aclosing(source):
        async for piece in source:
            end = piece.rfind(b"\0") + 1
            if end:
                yield bytes(rest) + piece[:end]
                rest.clear()
            rest += piece[end:]
            if len(rest) > MAX_FRAME:
                raise PeerFailed(f"a frame is longer than {MAX_FRAME} bytes")
    if rest:
        yield bytes(rest) + b"\0"
