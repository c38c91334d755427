"""Amazon DynamoDB, as far as PutItem goes; tests/exporters/test_dynamodb.py writes to emulators."""

from __future__ import annotations

import json

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.aws_sqs import json_error

__all__ = ["STAND_IN"]


def _items(request: Request) -> list[str]:
    return [json.loads(request.body)["Item"]["id"]["S"]]


STAND_IN = StandIn(
    options=lambda origin: {
        "endpoint_url": origin,
        "access_key_id": "AKIASTANDIN0123456789",
        "secret_access_key": "stand-in-secret-0123456789",
        "region": "eu-west-1",
    },
    accepted=lambda _: Answer(200, {}, b"{}"),
    items=_items,
    error=json_error,
)
