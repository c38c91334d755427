"""Bearer tokens of clouds that know a workload by its own token: OAuth 2.0, for Microsoft Entra and for Google.

A source fetches a token when the one that it has is about to expire, and says in its error what to mend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otelgw_exporters import http
from otelgw_exporters.errors import DestinationError

__all__ = ["NoToken", "Source", "Token", "entra", "google_federation", "managed_identity"]

_EARLY = timedelta(minutes=5)  # before its end a token is replaced
_TIMEOUT = 10.0
_AZURE = "https://storage.azure.com/"
_METADATA = "http://169.254.169.254/metadata/identity/oauth2/token"
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Token(NamedTuple):
    """A bearer token and when it ends."""

    text: str
    expires: datetime


class NoToken(DestinationError):
    """There is none; the text says why and what to mend."""


class Source:
    """Gives a token, the same one until shortly before it expires; from any thread."""

    def __init__(self, fetch: Callable[[], Token]) -> None:
        self._fetch = fetch
        self._token: Token | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Token:
        """Return a token.

        Raises:
            NoToken: it was refused, or nobody was there to ask.
        """
        with self._lock:
            if self._token is None or self._token.expires - datetime.now(UTC) < _EARLY:
                self._token = self._fetch()
            return self._token


def entra(options: Mapping[str, Any], tls: http.Tls, mask: Callable[[str], str]) -> Source:
    """Return the source for an application of Microsoft Entra: by its secret, by the pod's token, else by the identity
    of the machine.

    ``options`` are ``tenant_id``, ``client_id``, ``client_secret``, ``federated_token_file``, ``authority_host``,
    ``identity_endpoint`` and ``identity_header``.
    """
    tenant, client = options["tenant_id"], options["client_id"]
    secret, file = options["client_secret"], options["federated_token_file"]
    if not (secret or file):
        return managed_identity(client, options["identity_endpoint"], options["identity_header"], mask)
    url = f"{str(options['authority_host']).rstrip('/')}/{tenant}/oauth2/v2.0/token"

    def fetch() -> Token:
        form = {"grant_type": "client_credentials", "client_id": client, "scope": f"{_AZURE}.default"}
        if secret:
            form["client_secret"] = secret
        else:
            form |= {"client_assertion_type": _ASSERTION, "client_assertion": _read(file)}
        return _token(_post(url, form, "tenant_id, client_id or client_secret", tls, mask))

    return Source(fetch)


def managed_identity(client_id: str | None, app: str | None, header: str | None, mask: Callable[[str], str]) -> Source:
    """Return the source for the identity that Azure has given the machine, or at the endpoint ``app`` the app."""

    def fetch() -> Token:
        query = {"resource": _AZURE, "api-version": "2019-08-01" if app else "2018-02-01"}
        if client_id:
            query["client_id"] = client_id
        headers = {"X-IDENTITY-HEADER": header or ""} if app else {"Metadata": "true"}
        mend = "account_key, sas_token or tenant_id, client_id and client_secret"
        return _token(_get(f"{app or _METADATA}?{urlencode(query)}", headers, mend, mask))

    return Source(fetch)


def google_federation(config: Mapping[str, Any], mask: Callable[[str], str]) -> Source:
    """Return the source for Google's workload identity federation, from an ``external_account`` document.

    The workload's own token is read from a file or a URL, exchanged, and, where the document says so, exchanged again
    for one of a service account.

    Raises:
        NoToken: the document has no source of these kinds.
    """
    held = config.get("credential_source") or {}
    if not isinstance(held, dict) or not (held.get("file") or held.get("url")):
        raise NoToken("service_account: an external_account's credential_source must name a file or a url")
    account = config.get("service_account_impersonation_url")

    def fetch() -> Token:
        form = {
            "grant_type": _EXCHANGE,
            "audience": str(config.get("audience") or ""),
            "scope": "https://www.googleapis.com/auth/cloud-platform" if account else _GOOGLE_SCOPE,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": str(config.get("subject_token_type") or ""),
            "subject_token": _subject(held, mask),
        }
        token = _token(_post(str(config.get("token_url")), form, "service_account", http.Tls(), mask))
        return _impersonated(str(account), token, mask) if account else token

    return Source(fetch)


def _subject(held: Mapping[str, Any], mask: Callable[[str], str]) -> str:
    """Return the workload's own token, as plain text or out of a JSON document."""
    if held.get("file"):
        text = _read(str(held["file"]))
    else:
        headers = {str(key): str(value) for key, value in (held.get("headers") or {}).items()}
        text = _answer("GET", str(held["url"]), b"", headers, "service_account", http.Tls(), mask).decode()
    form = held.get("format") or {}
    if form.get("type") != "json":
        return text.strip()
    try:
        return str(msgspec.json.decode(text)[form["subject_token_field_name"]])
    except (msgspec.DecodeError, KeyError, TypeError):
        raise NoToken("service_account: the subject token is not where its format says: mend the file") from None


def _impersonated(url: str, token: Token, mask: Callable[[str], str]) -> Token:
    body = msgspec.json.encode({"scope": [_GOOGLE_SCOPE]})
    headers = {"authorization": f"Bearer {token.text}", "content-type": "application/json"}
    tree = _tree(_answer("POST", url, body, headers, "service_account", http.Tls(), mask))
    try:
        return Token(str(tree["accessToken"]), datetime.fromisoformat(str(tree["expireTime"])))
    except (KeyError, ValueError):
        raise NoToken(f"{http.origin(url)}: the answer holds no token") from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise NoToken(f"{path}: {said}: mend the path of the workload's token") from None


def _post(
    url: str, form: Mapping[str, str], options: str, tls: http.Tls, mask: Callable[[str], str]
) -> Mapping[str, Any]:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    return _tree(_answer("POST", url, urlencode(form).encode(), headers, options, tls, mask))


def _get(url: str, headers: Mapping[str, str], options: str, mask: Callable[[str], str]) -> Mapping[str, Any]:
    return _tree(_answer("GET", url, b"", headers, options, http.Tls(), mask))


def _answer(
    method: str,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    options: str,
    tls: http.Tls,
    mask: Callable[[str], str],
) -> bytes:
    """Return the body of a 2xx answer; the error names ``options`` as what is to be mended."""
    place = http.origin(url)
    try:
        with http.client("tokens", headers=headers, tls=tls) as client, suppress_instrumentation():
            answer = client.request(method, url, content=body, timeout=_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NoToken(f"{place}: no token: {mask(str(error)) or type(error).__name__}: mend {options}") from None
    if answer.is_success:
        return answer.content
    tree = _tree(answer.content)
    told = tree.get("error_description") or tree.get("error") or tree.get("message") or answer.text[:200]
    said = told.get("message") if isinstance(told, dict) else told
    raise NoToken(f"{place}: no token: HTTP {answer.status_code}: {mask(str(said))} (mend {options})")


def _tree(body: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    return found if isinstance(found, dict) else {}


def _token(tree: Mapping[str, Any]) -> Token:
    try:
        lasts = float(tree["expires_in"])
        return Token(str(tree["access_token"]), datetime.fromtimestamp(time.time() + lasts, UTC))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise NoToken("the answer to a request for a token holds none") from None
