"""Google Cloud Storage, as far as a PUT of its XML API goes; tests/exporters/test_gcs.py has more of it."""

from __future__ import annotations

from tests.exporters.stand_ins import Answer, StandIn
from tests.exporters.stand_ins.s3 import items, xml_error

__all__ = ["STAND_IN"]

STAND_IN = StandIn(
    options=lambda origin: {"bucket": "logs", "endpoint_url": origin},
    accepted=lambda _: Answer(200, {"etag": '"x"'}),
    items=items,
    busy=xml_error(503, "Please reduce your request rate."),
    error=xml_error,
    final=(),
    transport="local",
)
