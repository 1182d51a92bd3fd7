"""What a worker asks of the vLLM beside it, and how its answers are read."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from dev_opsgpt.engines.vllm.server import VllmServer
from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.errors import BadResponse
from dev_opsgpt.transport.response import Response
from dev_opsgpt.worker.engine import Delta
from dev_opsgpt.worker.openai_errors import answer_error
from dev_opsgpt.worker.openai_stream import read_stream

LARGEST_ERROR = 1 << 20
LARGEST_ANSWER = 256 << 20


@dataclass(frozen=True)
class Answer:
    """An answer as ``worker/relay.py`` passes it on."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: AsyncIterator[bytes]


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class Embeddings(msgspec.Struct):
    """The body of an answer of ``/v1/embeddings``."""

    data: list[_Embedding]
    usage: _Usage = msgspec.field(default_factory=_Usage)


class TokenCount(msgspec.Struct):
    """The body of an answer of ``/tokenize``."""

    count: int


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class Models(msgspec.Struct):
    """The body of an answer of ``/v1/models``."""

    data: list[_Model]


@asynccontextmanager
async def asked(
    client: Client, server: VllmServer, path: str, body: bytes = b"", *, method: str = "POST"
) -> AsyncIterator[Response]:
    """The answer to a request; leaving the context ends the exchange. Raises the errors of
    ``transport/errors.py``."""
    head = server.origin.head(method, path, server.headers)
    response = await client.send(server.origin, head, body)
    try:
        yield response
    finally:
        response.close()


async def read(
    client: Client, server: VllmServer, path: str, fields: Mapping[str, Any], type_: type[Any]
) -> Any:
    """An answer's body, as what it is to be. Raises ``ApiError``: vLLM's own, or that it cannot be
    read."""
    async with asked(client, server, path, msgspec.json.encode(fields)) as response:
        return await body_of(response, type_)


async def body_of(response: Response, type_: type[Any]) -> Any:
    """The same of an answer that has begun."""
    data = await response.read(LARGEST_ANSWER)
    if response.status != 200:
        raise answer_error(response.status, data)
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UpstreamFailed("vLLM's answer is not in the form that is known.") from None


async def stream(
    client: Client, server: VllmServer, path: str, fields: Mapping[str, Any]
) -> AsyncGenerator[Delta, None]:
    """The steps of a streamed answer. Raises ``ApiError``."""
    async with asked(client, server, path, msgspec.json.encode(fields)) as response:
        if response.status != 200:
            raise answer_error(response.status, await _some(response))
        async with aclosing(read_stream(aiter(response))) as steps:
            async for delta in steps:
                yield delta


async def _some(response: Response) -> bytes:
    try:
        return await response.read(LARGEST_ERROR)
    except BadResponse:
        return b""
