"""A callback's code out of a bucket: S3 and what speaks its protocol, Google Cloud Storage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from otelgw_exporters import catalog
from otelgw_exporters.callbacks.source import Source
from otelgw_exporters.errors import DestinationError

if TYPE_CHECKING:
    from otelgw_exporters.blob import BlobExporter

__all__ = ["fetch"]

_LARGEST = 4 * 1024 * 1024  # bytes of code
_ROWS: Mapping[str, str] = {"s3": "s3", "gs": "gcs_bucket"}


def fetch(found: Source, deadline: float) -> bytes:
    """Return the module's code. Credentials, region and endpoint are those of the destination's variables.

    Raises:
        DestinationError: it cannot be had; says why and what to mend.
    """
    from otelgw_exporters.blob import classify, obstore_of

    where = f"{found.scheme}://{found.bucket}/{found.key}"
    bucket = cast("BlobExporter", catalog.build(_ROWS[found.scheme], where, {"bucket": found.bucket}))
    reader = ThreadPoolExecutor(1)
    try:
        code = reader.submit(bucket.read, found.key).result(max(0.1, deadline - time.monotonic()))
    except FileNotFoundError:
        raise DestinationError(f"{where}: there is no such object; mend the callback's name, or put it there") from None
    except TimeoutError:
        raise DestinationError(f"{where}: no answer in time; it is tried again") from None
    except (OSError, ValueError, RuntimeError, obstore_of(where).exceptions.BaseError) as error:
        reason = classify(error, bucket.store).reason
        raise DestinationError(f"{where} cannot be fetched: {reason}; it is tried again") from None
    finally:
        bucket.shutdown()
        reader.shutdown(wait=False)
    if len(code) > _LARGEST:
        raise DestinationError(f"{where}: {len(code)} bytes are no callback")
    return code
