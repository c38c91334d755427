"""The root of the error tree and the errors of destinations.

::

    OtelgwError
    ├── DestinationError              a destination cannot be built or used
    │   └── DestinationConfigError    an option is missing or malformed
    └── (otelgw.errors)               config, request and upstream errors of the gateway
"""

__all__ = ["DestinationConfigError", "DestinationError", "OtelgwError"]


class OtelgwError(Exception):
    """Every error that otelgw raises on purpose; its text says what, where and how to mend it."""


class DestinationError(OtelgwError):
    """A destination cannot be built or used."""


class DestinationConfigError(DestinationError):
    """An option of a destination is missing or malformed."""
