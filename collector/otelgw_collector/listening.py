"""The end of listening on an event loop, without losing a connection."""

from __future__ import annotations

import asyncio

__all__ = ["stop_accepting"]

# A connection's way to its first callback: accepted, its transport made, the protocol told, the callback begun.
_STEPS = 4


async def stop_accepting(*listeners: int) -> None:
    """Accept nothing more on these listening sockets (descriptors), and let what was accepted get to its server.

    To be called before asyncio's ``Server.close``, which drops connections that are accepted and have no transport
    yet: their sockets stay open, and nobody ever answers on them.
    """
    loop = asyncio.get_running_loop()
    for listener in listeners:
        loop.remove_reader(listener)
    for _ in range(_STEPS):
        await asyncio.sleep(0)
