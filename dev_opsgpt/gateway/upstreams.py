"""How to call each replica: its origin, its credential, its paths; made once, used by every
request."""

from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from dev_opsgpt.gateway.peek import with_field
from dev_opsgpt.gateway.request import Request
from dev_opsgpt.protocol.direct import direct_key
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.fleet import Replica
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.response import Response

CLIENT_KEY = b"x-opsgpt-client-key: "


def takes_own_key(row: Worker) -> bool:
    """Whether a client's own key goes along: to our workers, which may ask a provider with it, but
    not to the server beside one."""
    return row.kind == "opsgpt" and row.direct_salt is None


class Upstream:
    """One replica's address in the form the client sends with. ``salt`` tells one life of a direct
    server from the next, None for what is none."""

    __slots__ = ("_headers", "_heads", "_strip", "origin", "ours", "salt")

    def __init__(
        self, url: str, *, credential: str | None, ours: bool, salt: str | None = None
    ) -> None:
        self.origin = Origin(url)
        self.ours = ours
        self.salt = salt
        # The URL of an OpenAI server ends in its own /v1.
        self._strip = "" if ours else "/v1"
        self._heads: dict[str, bytes] = {}
        self.identify(credential)

    def identify(self, credential: str | None) -> None:
        """Shows another credential from now on."""
        self._headers = {"content-type": "application/json"}
        if credential:
            self._headers["authorization"] = f"Bearer {credential}"
        self._heads.clear()

    def head(self, path: str) -> bytes:
        """The prepared head of a POST to ``path``."""
        head = self._heads.get(path)
        if head is None:
            head = self.origin.head("POST", path.removeprefix(self._strip), self._headers)
            self._heads[path] = head
        return head


class Upstreams:
    """All of them, by address.

    Our workers get the shared ``secret``, a direct server the key that is made of it; an attached
    server gets its key out of ``attached_keys``, which maps its URL to the key.
    """

    def __init__(
        self, client: Client, *, secret: str | None, attached_keys: Mapping[str, str]
    ) -> None:
        self._client = client
        self._secret = secret
        self._attached_keys = attached_keys
        self._known: dict[str, Upstream] = {}
        # The workers themselves, where ``_known`` has the servers beside them.
        self._workers: dict[str, Upstream] = {}

    def replace_keys(self, attached_keys: Mapping[str, str]) -> None:
        """Takes the keys of a changed configuration. What is in flight stays known, to be failed
        where its replica dies."""
        for address, known in self._known.items():
            if not known.ours and attached_keys.get(address) != self._attached_keys.get(address):
                known.identify(attached_keys.get(address))
        self._attached_keys = attached_keys

    def of(self, replica: Replica) -> Upstream:
        """Where a replica's generations are asked for."""
        row = replica.row
        found = self._known.get(row.address)
        if found is None or found.salt != row.direct_salt:
            if found is not None:
                self._client.forget(found.origin)
            found = self._known[row.address] = self._make(row)
        return found

    def _make(self, row: Worker) -> Upstream:
        if row.direct_url is not None and row.direct_salt is not None:
            key = direct_key(self._secret, row.direct_salt)
            return Upstream(row.direct_url, credential=key, ours=True, salt=row.direct_salt)
        ours = row.kind != "openai"
        # FastChat's own workers know no secret, and must not be told ours.
        credential = self._secret if row.kind == "opsgpt" else self._attached_keys.get(row.address)
        return Upstream(row.address, credential=credential, ours=ours)

    def send(self, replica: Replica, request: Request, model: str) -> Coroutine[Any, Any, Response]:
        """Sends a request to a replica; the model's name becomes the one the server knows."""
        row = replica.row
        upstream = self.of(replica)
        lines = request.lines_for(row.address)
        caller = request.caller
        if caller.own_key is not None and takes_own_key(row):
            lines += CLIENT_KEY + caller.own_key.encode("latin-1") + b"\r\n"
        name = row.upstream_models.get(model, model)
        body = request.body
        if name != request.model:
            body = with_field(body, "model", msgspec.json.encode(name))
        return self._client.send(upstream.origin, upstream.head(request.path) + lines, body)

    async def ask(self, replica: Replica, path: str, body: bytes) -> Response:
        """Posts something of the gateway's own to a replica's worker."""
        upstream = self.of(replica)
        if upstream.salt is not None:
            upstream = self._workers.get(replica.address) or Upstream(
                replica.address, credential=self._secret, ours=True
            )
            self._workers[replica.address] = upstream
        return await self._client.send(upstream.origin, upstream.head(path), body)

    def forget(self, replica: Replica) -> None:
        """Closes the idle connections of a replica that left."""
        for known in (self._known, self._workers):
            found = known.pop(replica.row.address, None)
            if found is not None:
                self._client.forget(found.origin)

    def abort(self, replica: Replica, error: ApiError) -> None:
        """Fails what is in flight on a replica that is dead."""
        for known in (self._known, self._workers):
            found = known.pop(replica.row.address, None)
            if found is not None:
                self._client.abort(found.origin, error)
