"""What a blob store may be: a directory, or one of the buckets, of whose options those count that say where it is."""

from __future__ import annotations

from dataclasses import replace

from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.rows import Option, Row, buckets, meant

__all__ = ["DIRECTORY", "TYPES", "row_of"]

DIRECTORY = "directory"

_ABOUT_DELIVERIES = frozenset(
    {
        *("path", "layout", "compression", "use_team_prefix", "use_key_prefix", "strip_base64_files", "batch_size"),
        *("batch_bytes", "flush_interval", "timeout", "semconv", "form", "bodies"),
    }
)
_ROWS = {
    DIRECTORY: Row(
        DIRECTORY,
        "",
        "A directory of this machine, or one that is mounted",
        options=(
            Option("path", "path", "the directory, relative to the config file, or a `file://` URL", required=True),
        ),
    )
} | {
    row.name: replace(row, options=tuple(each for each in row.options if each.name not in _ABOUT_DELIVERIES))
    for row in buckets.ROWS
}
TYPES: tuple[str, ...] = tuple(_ROWS)


def row_of(kind: str) -> Row:
    """Return the row of a kind of blob store.

    Raises:
        DestinationConfigError: there is no such kind; says which there are.
    """
    if kind not in _ROWS:
        raise DestinationConfigError(
            f"there is no blob store {kind[:60]!r}{meant(kind, list(TYPES))}; types: {', '.join(TYPES)}"
        )
    return _ROWS[kind]
