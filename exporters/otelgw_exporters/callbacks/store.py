"""A callback's code out of a bucket: S3 and what speaks its protocol, Google Cloud Storage."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from otelgw_exporters import catalog, options
from otelgw_exporters.callbacks.source import Source
from otelgw_exporters.errors import DestinationError

__all__ = ["fetch"]

_LARGEST = 4 * 1024 * 1024  # bytes of code
# By scheme: the row whose variables lead to such a store, and the function that makes one of its options.
_STORES: Mapping[str, tuple[str, str, str]] = {
    "s3": ("s3", "otelgw_exporters.s3_store", "s3_store"),
    "gs": ("gcs", "otelgw_exporters.gcs_store", "gcs_store"),
}


def fetch(found: Source, deadline: float) -> bytes:
    """Return the module's code. Credentials, region and endpoint are those of the destination's variables.

    Raises:
        DestinationError: it cannot be had; says why and what to mend.
    """
    from otelgw_exporters.blob import Writer, obstore_of

    where = f"{found.scheme}://{found.bucket}/{found.key}"
    row, module, function = _STORES[found.scheme]
    chosen = options.complete(catalog.row(row), {"bucket": found.bucket})
    writer = Writer(where, getattr(importlib.import_module(module), function)(where, chosen))
    reader = ThreadPoolExecutor(1)
    try:
        code: bytes = reader.submit(writer.read, found.key).result(max(0.1, deadline - time.monotonic()))
    except FileNotFoundError:
        raise DestinationError(f"{where}: there is no such object; mend the callback's name, or put it there") from None
    except TimeoutError:
        raise DestinationError(f"{where}: no answer in time; it is tried again") from None
    except (OSError, ValueError, RuntimeError, obstore_of(where).exceptions.BaseError) as error:
        said = writer.store.mask(" ".join(str(error).split())[:300])
        raise DestinationError(f"{where} cannot be fetched: {said}; it is tried again") from None
    finally:
        writer.close()
        reader.shutdown(wait=False)
    if len(code) > _LARGEST:
        raise DestinationError(f"{where}: {len(code)} bytes are no callback")
    return code
