"""The root of the error tree and the errors of destinations.

::

    OtelgwError
    ├── DestinationError              a destination cannot be built or used
    │   └── DestinationConfigError    an option is missing or malformed
    └── (otelgw.errors)               config, request and upstream errors of the gateway
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["DestinationConfigError", "DestinationError", "OtelgwError", "naming"]

_NAMED = "destination "


class OtelgwError(Exception):
    """Every error that otelgw raises on purpose; its text says what, where and how to mend it."""


class DestinationError(OtelgwError):
    """A destination cannot be built or used."""


class DestinationConfigError(DestinationError):
    """An option of a destination is missing or malformed."""


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Have a ``DestinationConfigError`` of this block say which destination it is about, if it does not already.

    Raises:
        DestinationConfigError: the block's own, named.
    """
    try:
        yield
    except DestinationConfigError as error:
        if str(error).startswith(_NAMED):
            raise
        raise DestinationConfigError(f"{_NAMED}{name}: {error}") from None
