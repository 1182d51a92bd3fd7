"""Calls of one FastChat part, a worker or a controller: JSON in, JSON or frames out."""

import base64
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from dev_opsgpt.gateway.fastchat_reader import error_of
from dev_opsgpt.protocol.errors import NotFound, UpstreamFailed
from dev_opsgpt.protocol.fastchat import Frame
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.response import Response

T = TypeVar("T")

LONGEST_ANSWER = 64 << 20


class RouteMissing(NotFound):
    """The part has no such route."""


class Peer:
    """One part at ``url``, which may hold a user name and password for HTTP Basic and a path.

    ``headers`` go along with every call. Raises ``ValueError`` for what is no http(s) URL.
    """

    def __init__(self, client: Client, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._origin = Origin(url)
        self._headers = {"content-type": "application/json", **(headers or {}), **_basic(url)}

    async def open(self, path: str, body: Any) -> Response:
        """Posts ``body`` and gives the answer with status 200, for the caller to read and close.

        Raises ``RouteMissing`` for a 404, ``UpstreamFailed`` for other statuses and for a
        connection that fails.
        """
        head = self._origin.head("POST", path, self._headers)
        response = await self._client.send(self._origin, head, msgspec.json.encode(body))
        if response.status == 200:
            return response
        response.close()
        if response.status == 404:
            raise RouteMissing(f"The model's worker has no {path}.")
        raise UpstreamFailed(f"The model's worker answered {path} with status {response.status}.")

    async def ask(self, path: str, body: Any, answer: type[T]) -> T:
        """One exchange. Raises what ``open`` does, and the error that the part answered with."""
        response = await self.open(path, body)
        try:
            data = await response.read(LONGEST_ANSWER)
        finally:
            response.close()
        try:
            return msgspec.json.decode(data, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise _refusal(path, data) from None

    async def get(self, path: str) -> bytes | None:
        """The body of a GET; ``None`` for any status but 200."""
        response = await self._client.send(
            self._origin, self._origin.head("GET", path, self._headers)
        )
        try:
            return await response.read(LONGEST_ANSWER) if response.status == 200 else None
        finally:
            response.close()


def _refusal(path: str, data: bytes) -> Exception:
    try:
        frame = msgspec.json.decode(data, type=Frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        frame = Frame("")
    if frame.error_code:
        return error_of(frame)
    return UpstreamFailed(f"The model's worker did not answer {path} as FastChat's do.")


def _basic(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
