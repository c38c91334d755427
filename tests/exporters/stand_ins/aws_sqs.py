"""Amazon SQS, as far as SendMessageBatch goes; tests/exporters/test_sqs.py sends to an emulator."""

from __future__ import annotations

import json
from typing import Any

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.exporters.stand_ins.generic_api import identity

__all__ = ["STAND_IN", "json_error"]

_CODES = {401: "UnrecognizedClientException", 403: "AccessDeniedException", 400: "InvalidMessageContents"}


def json_error(status: int, words: str) -> Answer:
    """Return a failure as Amazon's JSON services tell it."""
    told = {"__type": f"com.amazonaws#{_CODES.get(status, 'InternalFailure')}", "message": words}
    return Answer(status, {"content-type": "application/x-amz-json-1.0"}, json.dumps(told).encode())


def _entries(request: Request) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(request.body)["Entries"]
    return found


def _accepted(request: Request, failed: tuple[dict[str, Any], ...] = ()) -> Answer:
    taken = [
        {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x"} for entry in _entries(request)[len(failed) :]
    ]
    return Answer(200, {}, json.dumps({"Successful": taken, "Failed": failed}).encode())


def _partial(request: Request) -> Answer:
    code = {"Code": "InvalidMessageContents", "Message": "no", "SenderFault": True}
    return _accepted(request, ({"Id": _entries(request)[0]["Id"], **code},))


STAND_IN = StandIn(
    options=lambda origin: {
        "queue_url": f"{origin}/123456789012/queue",
        "access_key_id": "AKIASTANDIN0123456789",
        "secret_access_key": "stand-in-secret-0123456789",
        "region": "eu-west-1",
    },
    accepted=_accepted,
    items=lambda request: [identity(json.loads(entry["MessageBody"])) for entry in _entries(request)],
    partial=_partial,
    error=json_error,
)
