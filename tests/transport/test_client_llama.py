"""What the llama.cpp engine needs of the client beside plain exchanges."""

import asyncio

import pytest

from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.errors import ConnectionBroken


async def test_closing_the_client_wakes_who_waits() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        origin = Origin(f"http://127.0.0.1:{port}")
        client = Client()
        waiting = asyncio.create_task(client.send(origin, origin.head("GET", "/", {})))
        await asyncio.wait_for(asked.wait(), 30)
        client.close()
        with pytest.raises(ConnectionBroken):
            await asyncio.wait_for(waiting, 30)
