"""Azure Blob Storage, and Data Lake Storage Gen2 through its Blob endpoint: the same files, directories made on the
way."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from otelgw_exporters import catalog, http, options, tokens
from otelgw_exporters.blob import RETRY, BlobExporter, Provider, Store, client_options, obstore_of
from otelgw_exporters.errors import DestinationConfigError, naming

__all__ = ["AzureStorageExporter"]

_SECRETS = ("account_key", "sas_token", "client_secret", "identity_header")
_SIGNATURE = re.compile(r"(?:\w+:)?[A-Za-z0-9+/]{43}=")  # of a request: Azure repeats it where it is wrong
_RIGHT = "the credentials lack the right to write: give them the role Storage Blob Data Contributor; mend it in Azure"
_HINTS: Mapping[str, str] = {
    "AccountIsDisabled": "the storage account is disabled: mend it in Azure",
    "AuthenticationFailed": "the credentials are not accepted: mend account_key, sas_token or client_secret, or the "
    "clock of this machine",
    "AuthorizationFailure": "the key, the signature's rights or the account's network rules do not allow it: mend "
    "account_key or sas_token, or the rules in Azure",
    "AuthorizationPermissionMismatch": _RIGHT,
    "AuthorizationProtocolMismatch": "the signature is for https only: mend the destination's endpoint_url",
    "AuthorizationResourceTypeMismatch": "the signature is not for objects: mend the destination's sas_token",
    "AuthorizationServiceMismatch": "the signature is not for blobs: mend the destination's sas_token",
    "AuthorizationSourceIPMismatch": "the signature is for other addresses: mend the destination's sas_token",
    "ContainerBeingDeleted": "the container is being deleted: mend the destination's container, or create it again",
    "ContainerDisabled": "the container is disabled: mend it in Azure",
    "ContainerNotFound": "mend the destination's container, or create it",
    "InsufficientAccountPermissions": _RIGHT,
    "InvalidAuthenticationInfo": "the token is not accepted: mend tenant_id, client_id or the clock of this machine",
    "InvalidResourceName": "mend the destination's container: lower case letters, digits and hyphens",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: mend the destination: use tenant_id, client_id …",
    "NoAuthenticationInformation": "no credentials were sent: mend the destination's account_key or sas_token",
    "ResourceNotFound": "mend the destination's account or container",
}


class AzureStorageExporter(BlobExporter):
    """Writes blobs to a container. Keywords are the options of the catalogue row ``azure_storage``; what is missing is
    read from the environment.

    Credentials, the first that is set: ``account_key``, ``sas_token``, ``client_secret``, ``federated_token_file``, the
    identity that Azure gives the machine.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a library is missing.
    """

    def __init__(self, *, name: str = "azure_storage", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("azure_storage"), given)
            super().__init__(name, chosen, _store(name, chosen))


def _store(name: str, chosen: Mapping[str, Any]) -> Store:
    obstore_of(name)
    account, container = str(chosen["account"]), str(chosen["container"])
    url = str(chosen["endpoint_url"] or f"https://{account}.blob.core.windows.net").rstrip("/")
    hide = http.Masked({secret: chosen[secret] for secret in _SECRETS if chosen[secret]})

    def mask(text: str) -> str:
        return hide(_SIGNATURE.sub("***", text))

    provider = _provider(name, chosen, mask)
    over: Any = client_options(url, certificate=str(chosen["certificate"] or ""))

    def build() -> Any:
        from obstore.store import AzureStore

        given: Any = {"account_name": account, "endpoint": url}
        return AzureStore(
            container, client_options=over, retry_config=RETRY, credential_provider=Provider(provider), **given
        )

    return Store(f"azure container {container} at {http.origin(url)}", build, _HINTS, mask)


def _base64(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise tokens.NoToken("account_key is not Base64, as Azure gives it: mend it") from None
    return key


def _provider(name: str, chosen: Mapping[str, Any], mask: Callable[[str], str]) -> Callable[[], dict[str, Any]]:
    """Return what gives obstore its credentials."""
    if key := chosen["account_key"]:
        return lambda: {"access_key": _base64(key), "expires_at": None}
    if sas := chosen["sas_token"]:
        return lambda: {"sas_token": sas.lstrip("?"), "expires_at": None}
    secret, file = chosen["client_secret"], chosen["federated_token_file"]
    missing = [option for option in ("tenant_id", "client_id") if not chosen[option]]
    if (secret or file) and missing:
        raise DestinationConfigError(f"{missing[0]} is missing: it goes with client_secret or federated_token_file")
    tls = http.Tls(str(chosen["certificate"] or ""))
    tls.check(name)
    source = tokens.entra(chosen, tls, mask)

    def token() -> dict[str, Any]:
        found = source()
        return {"token": found.text, "expires_at": found.expires}

    return token
