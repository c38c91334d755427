"""Google Cloud Storage, by its XML API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from otelgw_exporters import catalog, http, options, tokens
from otelgw_exporters.blob import RETRY, BlobExporter, Provider, Store, client_options, obstore_of
from otelgw_exporters.errors import DestinationConfigError, naming

__all__ = ["GcsExporter"]

_ACCOUNT = "the service account is not accepted: mend the destination's service_account, or the clock of this machine"
_NONE = "mend the destination: set service_account, or give the machine or pod a service account"
_HINTS: Mapping[str, str] = {
    "AccessDenied": "the service account lacks the right to write: give it the role Storage Object User; mend it in "
    "Google Cloud",
    "AccountProblem": "mend the billing of the project in Google Cloud",
    "AuthenticationRequired": _ACCOUNT,
    "ExpiredToken": _ACCOUNT,
    "InvalidBucketName": "mend the destination's bucket",
    "InvalidSecurity": _ACCOUNT,
    "NoSuchBucket": "mend the destination's bucket, or create it",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: mend it (NTP)",
    "SignatureDoesNotMatch": _ACCOUNT,
    "UserProjectAccountProblem": "mend the billing of the project in Google Cloud",
}


class GcsExporter(BlobExporter):
    """Writes objects to a bucket. Keywords are the options of the catalogue row ``gcs_bucket``; what is missing is read
    from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a library is missing.
    """

    def __init__(self, *, name: str = "gcs_bucket", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("gcs_bucket"), given)
            super().__init__(name, chosen, _store(name, chosen))


def _store(name: str, chosen: Mapping[str, Any]) -> Store:
    obstore_of(name)
    bucket, url = str(chosen["bucket"]), str(chosen["endpoint_url"] or "")
    document = _document(chosen["service_account"])
    secrets = {key: str(document[key]) for key in ("private_key", "refresh_token", "client_secret") if key in document}
    mask = http.Masked(secrets)
    given = _credentials(document, str(chosen["service_account"] or ""), mask)
    if url:
        given["base_url"] = url
    over: Any = client_options(url)

    def build() -> Any:
        from obstore.store import GCSStore

        return GCSStore(bucket, client_options=over, retry_config=RETRY, **given)

    shown = f"gs://{bucket}" + (f" at {http.origin(url)}" if url else "")
    return Store(shown, build, _HINTS, mask, tokens=_ACCOUNT if document else _NONE)


def _document(path: Any) -> Mapping[str, Any]:
    """Return the JSON document with the credentials; empty without one."""
    if not path:
        return {}
    try:
        found = msgspec.json.decode(Path(path).read_bytes())
    except OSError as error:
        raise DestinationConfigError(f"service_account: {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or "type" not in found:
        raise DestinationConfigError(
            f"service_account: {path} is no key file: mend it with the JSON that Google Cloud gives for a key"
        )
    return found


def _credentials(document: Mapping[str, Any], path: str, mask: http.Masked) -> dict[str, Any]:
    """Return obstore's options for the document's kind of credentials; none: it asks the metadata server."""
    kind = document.get("type")
    if kind is None:
        return {}
    if kind == "service_account":
        return {"service_account": path}
    if kind == "authorized_user":
        return {"application_credentials": path}
    if kind != "external_account":
        raise DestinationConfigError(
            f"service_account: {path} is of type {str(kind)[:40]!r}; mend it with one of service_account, "
            "external_account, authorized_user"
        )
    try:
        source = tokens.google_federation(document, mask)
    except tokens.NoToken as error:
        raise DestinationConfigError(str(error)) from None

    def provider() -> dict[str, Any]:
        token = source()
        return {"token": token.text, "expires_at": token.expires}

    return {"credential_provider": Provider(provider)}
