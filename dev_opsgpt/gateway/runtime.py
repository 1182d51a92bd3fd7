"""One gateway on its port: started, changed while it runs, drained, stopped."""

import asyncio
import logging
import socket
from collections.abc import Sequence

from dev_opsgpt.gateway.assembly import Gateway
from dev_opsgpt.gateway.options import GatewayOptions
from dev_opsgpt.transport.server import Server, bind

log = logging.getLogger(__name__)


class GatewayRuntime:
    """Runs a gateway, on the ``sockets`` that it is given or else on one that it binds. ``start``
    raises ``PortInUse``, ``StorageError``."""

    def __init__(self, options: GatewayOptions, sockets: Sequence[socket.socket] = ()) -> None:
        self._options = options
        self._sockets = sockets
        self._server: Server | None = None
        self._gateway: Gateway | None = None
        self.stopping = asyncio.Event()

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._server.port if self._server is not None else self._options.port

    async def start(self) -> None:
        """Returns when requests are answered."""
        options = self._options
        sockets = self._sockets or [bind(options.host, options.port, reuse_port=options.reuse_port)]
        self._gateway = gateway = Gateway(options)
        await gateway.start()
        self._server = Server(
            gateway.app, *sockets, hot=gateway.hot, drain_timeout=options.drain_timeout
        )
        await self._server.start()
        log.info("the gateway answers on port %s", self.port)

    async def reload(self, options: GatewayOptions) -> None:
        """Goes on by other options, on the same port. Raises ``ValueError`` as a start does, and
        has then changed nothing."""
        if self._gateway is not None:
            self._gateway.reload(options)

    async def stop(self) -> None:
        """Closes the port, lets answers in flight end, stops."""
        if self._server is not None:
            await self._server.stop()
        if self._gateway is not None:
            await self._gateway.stop()
