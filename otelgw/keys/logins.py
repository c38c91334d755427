"""Failed logins, counted by client address.

An address that keeps failing gets 429 instead of 401, and its keys are not even looked up any more unless they are in
use already: so that nobody wears out the database by guessing, and a caller with a good key behind the same address is
not locked out by a bad neighbour. That a key cannot be guessed is owed to its length, not to this.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["Logins"]

_FREE = 10  # failures that an address has at once
_EVERY = 6.0  # seconds until it has one more
_MOST = 4096  # addresses that are remembered; the one that failed longest ago is forgotten first
_V6_PREFIX = 64  # what one customer usually has


class Logins:
    """One worker's counts. Times are seconds of one clock."""

    def __init__(self, workers: int = 1) -> None:
        self._free = max(2.0, _FREE / max(1, workers))
        self._every = _EVERY * max(1, workers)
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, as of when

    def wait(self, address: str, now: float) -> float:
        """Return the seconds until ``address`` may fail again; 0 is now."""
        if not self._failures:
            return 0.0
        count = self._count(_network(address), now)
        return 0.0 if count < self._free else (count - self._free + 1) * self._every

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        network = _network(address)
        self._failures[network] = (min(self._count(network, now) + 1, 2 * self._free), now)
        self._failures.move_to_end(network)
        if len(self._failures) > _MOST:
            self._failures.popitem(last=False)

    def _count(self, network: str, now: float) -> float:
        count, at = self._failures.get(network, (0.0, now))
        return max(0.0, count - max(0.0, now - at) / self._every)


def _network(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _V6_PREFIX), strict=False))
