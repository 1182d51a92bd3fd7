"""What the gateway keeps of the servers that it calls, while the configuration changes."""

import asyncio

import pytest

from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.routing.fleet import Replica
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.errors import ConnectionBroken
from tests.support.upstream import Upstream, hang, until


async def test_keys_change_while_requests_are_in_flight() -> None:
    """A worker that dies silently fails what it was asked before the change too."""
    server = Upstream(hang)
    await server.start()
    async with Client() as client:
        upstreams = Upstreams(client, secret=None, attached_keys={server.url: "old"})
        replica = Replica(Worker(address=server.url, models=("echo",), kind="openai"))
        body = b'{"model": "echo"}'
        waits = []
        for key in ("old", "old", "new", ""):
            upstreams.replace_keys({server.url: key} if key else {})
            waits.append(asyncio.create_task(upstreams.ask(replica, "/v1/completions", body)))
            await until(lambda: server.at_work == len(waits))
        heads = [call.head.lower() for call in server.calls]
        assert [b"bearer old" in head for head in heads] == [True, True, False, False]
        assert [b"authorization" in head for head in heads] == [True, True, True, False]
        upstreams.abort(replica, ConnectionBroken("It is gone."))
        async with asyncio.timeout(5):
            for wait in waits:
                with pytest.raises(ConnectionBroken):
                    await wait
    await server.stop()
