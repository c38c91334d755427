"""A connection that hypercorn accepted, in the place of hypercorn's own ``TCPServer``."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

from hypercorn.config import Config

from otelgw.http.edge import Connection, Edge
from otelgw.http.stream import Application

if TYPE_CHECKING:
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.typing import LifespanState, WorkerContext

__all__ = ["EdgeConfig", "HypercornConnection"]


class EdgeConfig(Config):
    """hypercorn's configuration, and the edge that its connections share."""

    def __init__(self, edge: Edge) -> None:
        super().__init__()
        self.edge = edge


class HypercornConnection(Connection):
    """Takes the transport over from asyncio's streams, which would hand every read from task to task. Awaited by
    hypercorn, to its end."""

    def __init__(
        self,
        app: ASGIWrapper,
        loop: asyncio.AbstractEventLoop,
        config: EdgeConfig,
        _context: WorkerContext,
        _state: LifespanState,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(config.edge, cast("Application", app.app))
        self._reader = reader
        self._writer = writer
        self._over = loop.create_future()

    def __await__(self) -> Generator[Any]:
        return self.run().__await__()

    async def run(self) -> None:
        """Serve the connection to its end."""
        transport = self._writer.transport
        transport.set_protocol(self)
        self.connection_made(transport)
        self._reader.feed_eof()
        data = await self._reader.read()  # what came before; it does not wait
        if data:
            self.data_received(data)
        if transport.is_closing() and not self.finishing:
            self.connection_lost(None)  # nobody else would say so
        try:
            await self._over
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _gone(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
