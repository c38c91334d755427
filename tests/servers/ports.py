"""Loopback ports for servers of tests, none of which the system gives out by itself.

Each process that tests run in has its own ones: between finding a port free and listening on it nobody else takes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

__all__ = ["free_pairs", "free_port"]

_PROCESSES = 8  # that have ports of their own; xdist numbers them
_SINGLE, _SINGLES = 12_000, 1_000  # the first one, and how many a process has
_PAIR, _PAIRS = 20_000, 340
_TAKEN = itertools.count(os.getpid() * 7)


def _process() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES


def free_port() -> int:
    """Return a port that nobody listens on; it is another one each time, so that a late client meets no new server."""
    first = _SINGLE + _SINGLES * _process()
    while True:
        port = first + next(_TAKEN) % _SINGLES
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def free_pairs(count: int, apart: int) -> list[int]:
    """Return ``count`` ports that nobody listens on, nor on the port ``apart`` above each.

    Raises:
        RuntimeError: there are not so many.
    """
    found: list[int] = []
    first = _PAIR + _PAIRS * _process()
    for port in range(first, first + _PAIRS, 7):
        low, high = ("127.0.0.1", port), ("127.0.0.1", port + apart)
        with contextlib.suppress(OSError), socket.create_server(low), socket.create_server(high):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"ports {first} to {first + _PAIRS - 1}: fewer than {count} are free with the one {apart} above")
