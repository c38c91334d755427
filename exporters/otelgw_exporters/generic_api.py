"""Any HTTP endpoint: StandardLoggingPayloads by POST, as LiteLLM's callback ``generic_api`` sends them.

Every request has an ``idempotency-key`` that is the same each time the same payloads are sent. With a secret it is
signed as Standard Webhooks 1.0 has it: ``webhook-id`` (the same key), ``webhook-timestamp``, ``webhook-signature``. The
signature is of the body before compression, since that is what a server's code gets to see.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from otelgw_exporters import catalog, document, http, options, payload
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import Reply
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.posting import Limits, Piece, Posting, classify, explanation, packed, write_array

__all__ = ["GenericApiExporter", "key_of", "signature"]

_PREFIX = "whsec_"
_STATUSES = {"success": "llm_api_success", "failure": "llm_api_failure"}
_TYPES = {"json_array": "application/json", "ndjson": "application/x-ndjson", "single": "application/json"}


class GenericApiExporter(Posting):
    """Posts payloads. Keywords are the options of the catalog row ``generic_api``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or there is no endpoint.
    """

    def __init__(self, *, name: str = "generic_api", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("generic_api"), given)
        self._format: str = chosen["format"]
        count = 1 if self._format == "single" else chosen["max_calls"]
        super().__init__(name, timeout=chosen["timeout"], limits=Limits(count, chosen["max_request_bytes"]))
        self._event_types = frozenset(chosen["event_types"])
        self._gzip = chosen["compression"] == "gzip"
        self._endpoint, auth = _without_userinfo(chosen["endpoint"])
        secret: str = chosen["signing_secret"] or ""
        self._secret = _secret(secret, name)
        given_headers: Mapping[str, str] = chosen["headers"] or {}
        basic = base64.b64encode(auth.encode()).decode()
        words = (*given_headers.values(), secret, basic, *auth.split(":", 1), *_values(self._endpoint))
        self._mask = http.Masked({str(number): word for number, word in enumerate(words)})
        paths = ("certificate", "client_key", "client_certificate")
        tls = http.Tls(*(chosen[path] or "" for path in paths))
        tls.check(name)
        headers = {"user-agent": "otelgw", "accept-encoding": "identity"}
        headers |= {"authorization": f"Basic {basic}"} if auth else {}
        headers |= given_headers
        headers |= {"content-type": _TYPES[self._format]}
        self._http = http.client(name, headers=headers, tls=tls)

    def encode(self, call: Call) -> bytes | None:
        data = payload.encoded(call)
        if len(self._event_types) < len(_STATUSES):
            read = document.read(data)
            if _STATUSES.get(read["status"]) not in self._event_types:
                return None
        return data

    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        body = self._body(part)
        key = key_of(piece.call.identity for piece in part)
        headers = {"idempotency-key": key}
        if self._secret:
            now = int(time.time())
            headers |= {
                "webhook-id": key,
                "webhook-timestamp": str(now),
                "webhook-signature": signature(self._secret, key, now, body),
            }
        if self._gzip:
            body = packed(body)
            headers["content-encoding"] = "gzip"
        answer = http.send(self._http, self._endpoint, body, deadline, self._mask, headers)
        return answer if isinstance(answer, Reply) else classify(answer, self._mask(explanation(answer)))

    def _body(self, part: Sequence[Piece]) -> bytes:
        if self._format == "json_array":
            return write_array(part)
        end = b"\n" if self._format == "ndjson" else b""
        return b"".join(piece.data + end for piece in part)

    def shutdown(self) -> None:
        super().shutdown()
        self._http.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self._endpoint)}>"


def key_of(identities: Iterable[str]) -> str:
    """Return a key for what is sent together: the same for the same calls in the same order, 32 hex digits."""
    return hashlib.sha256("\n".join(identities).encode()).hexdigest()[:32]


def signature(secret: bytes, key: str, timestamp: int, body: bytes) -> str:
    """Return Standard Webhooks' ``webhook-signature`` of a body; ``timestamp`` in seconds."""
    signed = b"%s.%d.%s" % (key.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}"


def _secret(text: str, name: str) -> bytes:
    """Return the key that a secret stands for: what is encoded after ``whsec_``, else the text itself."""
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raise DestinationConfigError(
            f"destination {name}: signing_secret: what follows whsec_ is no base64; copy the secret anew"
        ) from None


def _values(url: str) -> list[str]:
    """Return what a URL's query says, which may be a credential, as it stands there and decoded."""
    pairs = urlsplit(url).query.split("&")
    raw = [pair.partition("=")[2] for pair in pairs]
    return [*raw, *map(unquote_plus, raw)]


def _without_userinfo(url: str) -> tuple[str, str]:
    """Return a URL without the user and password in it, and these."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=host, path=parts.path or "/").geturl(), unquote(userinfo)
