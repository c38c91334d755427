"""Azure Blob Storage, as far as a PUT goes; tests/exporters/test_azure.py writes to Microsoft's emulator."""

from __future__ import annotations

from tests.exporters.stand_ins import Answer, StandIn
from tests.exporters.stand_ins.s3 import items, xml_error

__all__ = ["STAND_IN"]


def _error(status: int, words: str) -> Answer:
    answer = xml_error(status, words)
    code = {401: b"InvalidAuthenticationInfo", 403: b"AuthenticationFailed", 503: b"ServerBusy"}
    body = answer.body.replace(b"<Code>AccessDenied", b"<Code>" + code.get(status, b"AccessDenied"))
    return answer._replace(body=body.replace(b"<Code>InvalidAccessKeyId", b"<Code>" + code.get(status, b"")))


STAND_IN = StandIn(
    options=lambda origin: {
        "account": "devstoreaccount1",
        "container": "logs",
        "endpoint_url": f"{origin}/devstoreaccount1",
        "account_key": "c3RhbmQtaW4tc2VjcmV0LTAxMjM0NTY3ODk=",
    },
    accepted=lambda _: Answer(201, {"etag": '"x"', "last-modified": "Fri, 15 Jan 2027 08:00:00 GMT"}),
    items=items,
    busy=_error(503, "The server is busy."),
    error=_error,
    final=(),
)
