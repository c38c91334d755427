"""The exporters of routes: made when they are needed, so many kept open."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from otelgw.config.settings import Keys
from otelgw.keys import callbacks
from otelgw.tenant_routes import Route
from otelgw_exporters.delivery import Exporter

__all__ = ["Exporters"]

log = logging.getLogger(__name__)


class Exporters:
    """Open exporters by route. ``busy`` says of a route's id whether it is delivered to: then its exporter is kept."""

    def __init__(self, keys: Keys, busy: Callable[[str], bool]) -> None:
        self._keys = keys
        self._busy = busy
        self._open: OrderedDict[str, tuple[bytes, Exporter]] = OrderedDict()
        self._closed = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, route: Route) -> Exporter:
        """Return the route's exporter; the one that was not used for longest is closed if there are too many.

        Once all were closed it is a closed one, which delivers nothing.

        Raises:
            OtelgwError, OSError: it cannot be made.
        """
        mark = hashlib.sha256(msgspec.json.encode(route.callback)).digest()
        with self._lock:
            held = self._open.get(route.id)
            if held is not None and held[0] == mark:
                self._open.move_to_end(route.id)
                return held[1]
        self.drop(route.id)
        made: Exporter = callbacks.make(route.callback, route.owner, self._keys, route.id)
        with self._lock:
            self._open[route.id] = (mark, made)
            idle = [name for name in self._open if self._closed or not self._busy(name)]
            surplus = idle[: len(self._open) if self._closed else max(0, len(self._open) - self._keys.exporters)]
            closing = [self._open.pop(name)[1] for name in surplus]
        for exporter in closing:
            _close(exporter)
        return made

    def drop(self, route_id: str) -> None:
        """Close a route's exporter, if it has one open."""
        with self._lock:
            held = self._open.pop(route_id, None)
        if held is not None:
            _close(held[1])

    def close(self) -> None:
        """Close all of them, and those that are being made as soon as they are."""
        with self._lock:
            self._closed = True
            closing = [exporter for _, exporter in self._open.values()]
            self._open.clear()
        for exporter in closing:
            _close(exporter)


def _close(exporter: Exporter) -> None:
    try:
        exporter.shutdown()
    except Exception as error:  # noqa: BLE001 - it is out of use anyway
        log.debug("an exporter cannot be closed (%s)", type(error).__name__)
