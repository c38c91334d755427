"""Amazon S3, as far as a PUT goes; tests/exporters/test_s3.py writes to a real one."""

from __future__ import annotations

import gzip
import json

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.generic_api import identity

__all__ = ["STAND_IN", "items", "xml_error"]


def items(request: Request) -> list[str]:
    """Return the ids of the payloads in an object of JSON lines, packed or not."""
    if request.method != "PUT":
        return []
    text = gzip.decompress(request.body) if request.body[:2] == b"\x1f\x8b" else request.body
    return [identity(json.loads(line)) for line in text.splitlines()]


def xml_error(status: int, words: str) -> Answer:
    """Return a failure as the XML APIs of Amazon, Azure and Google tell it."""
    code = {401: "InvalidAccessKeyId", 403: "AccessDenied", 503: "SlowDown"}.get(status, "InternalError")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}</Message></Error>"
    return Answer(status, {"content-type": "application/xml"}, body.encode())


STAND_IN = StandIn(
    options=lambda origin: {
        "bucket": "logs",
        "endpoint_url": origin,
        "access_key_id": "AKIASTANDIN0123456789",
        "secret_access_key": "stand-in-secret-0123456789",
    },
    accepted=lambda _: Answer(200, {"etag": '"x"'}),
    items=items,
    busy=xml_error(503, "Please reduce your request rate."),
    error=xml_error,
    final=(),
)
