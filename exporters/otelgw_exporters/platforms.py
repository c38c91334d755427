"""The platforms that a row of the catalogue tells all about: ``otelgw_exporters.platforms:Phoenix`` is ``phoenix``'s.

A row's class is made when it is asked for.
"""

from __future__ import annotations

from otelgw_exporters import catalog
from otelgw_exporters.otlp_vendor import ReadableExporter, VendorExporter

_made: dict[str, type[VendorExporter]] = {}


def __getattr__(name: str) -> type[VendorExporter]:
    """Return the class of the row whose factory is ``otelgw_exporters.platforms:<name>``."""
    if name not in _made:
        row = next((row for row in catalog.ROWS if row.factory == f"{__name__}:{name}"), None)
        if row is None:
            raise AttributeError(name)
        base = ReadableExporter if row.wire is not None and row.wire.trace else VendorExporter
        _made[name] = type(name, (base,), {"ROW": row.name, "__doc__": row.description})
    return _made[name]
