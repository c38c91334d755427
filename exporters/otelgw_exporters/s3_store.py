"""An S3 bucket as the writer of objects needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otelgw_exporters import aws, http
from otelgw_exporters.blob import RETRY, Provider, Store, client_options, obstore_of
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["s3_store"]

_SECRETS = ("access_key_id", "secret_access_key", "session_token")
_AES = {"aes256": "AES256"}


def s3_store(name: str, options: Mapping[str, Any]) -> Store:
    """Return the store that ``options`` describe, those of the row ``s3``; nothing is connected to yet.

    Raises:
        DestinationConfigError: an option cannot be used, or a library is missing.
    """
    obstore_of(name)
    bucket, url = str(options["bucket"]), str(options["endpoint_url"] or "")
    if "/" in bucket or not bucket.isprintable() or " " in bucket:
        raise DestinationConfigError(f"bucket: {bucket!r} is no bucket's name; a prefix belongs into `path`")
    keys = aws.credentials(name, options)
    hosted = options["virtual_hosted_style"]
    config: dict[str, Any] = {
        "endpoint": _hosted(url, bucket) if url and hosted else url or None,
        "region": aws.region_of(name, options),
        "virtual_hosted_style_request": not url if hosted is None else hosted,
        **_encryption(options),
    }
    certificate = str(options["certificate"] or "")
    over: Any = client_options(url, certificate=certificate, verify=options["verify"])

    def build() -> Any:
        from obstore.store import S3Store

        given: Any = {key: value for key, value in config.items() if value is not None}
        return S3Store(
            bucket,
            client_options=over,
            retry_config=RETRY,
            credential_provider=Provider(lambda: keys().for_obstore()),
            **given,
        )

    mask = http.Masked({secret: options[secret] for secret in _SECRETS if options[secret]})
    shown = f"s3://{bucket}" + (f" at {http.origin(url)}" if url else "")
    return Store(shown, build, aws.HINTS, mask, aws.THROTTLED)


def _hosted(url: str, bucket: str) -> str:
    """Return the endpoint with the bucket in its host name, as obstore wants it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{bucket}.{rest}"


def _encryption(options: Mapping[str, Any]) -> dict[str, Any]:
    asked, key = options["server_side_encryption"], options["kms_key_id"]
    if key and asked not in {None, "aws:kms", "aws:kms:dsse"}:
        raise DestinationConfigError("kms_key_id: goes with server_side_encryption: aws:kms or aws:kms:dsse")
    if key and not asked:
        asked = "aws:kms"
    return {
        "server_side_encryption": _AES.get(asked, asked) if asked else None,
        "sse_kms_key_id": key,
        "sse_bucket_key_enabled": True if options["bucket_key"] else None,
    }
