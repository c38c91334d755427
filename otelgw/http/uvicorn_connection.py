"""A connection that uvicorn accepted, in the place of uvicorn's own HTTP protocols."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from otelgw.http.edge import Connection, Edge
from otelgw.http.stream import Application

if TYPE_CHECKING:
    from uvicorn.server import ServerState

__all__ = ["UvicornConnection"]


class UvicornConnection(Connection):
    """Is among ``server_state.connections``, for which uvicorn waits when it stops."""

    def __init__(self, edge: Edge, application: Application, *, server_state: ServerState, **_: Any) -> None:
        super().__init__(edge, application)
        self._connections: set[Any] = server_state.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        super().connection_made(transport)

    def _gone(self) -> None:
        self._connections.discard(self)

    def shutdown(self) -> None:
        """uvicorn stops: nothing to do here, for ``Edge.end`` closes every connection in good order."""
