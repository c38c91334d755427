"""Amazon S3, and every store that speaks its API."""

from __future__ import annotations

from typing import Any

from otelgw_exporters import catalog, options
from otelgw_exporters.blob import BlobExporter
from otelgw_exporters.errors import naming
from otelgw_exporters.s3_store import s3_store

__all__ = ["S3Exporter"]


class S3Exporter(BlobExporter):
    """Writes objects to a bucket. Keywords are the options of the catalogue row ``s3``; what is missing is read from
    the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a library is missing.
    """

    def __init__(self, *, name: str = "s3", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("s3"), given)
            super().__init__(name, chosen, s3_store(name, chosen))
