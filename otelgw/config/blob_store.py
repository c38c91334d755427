"""``blob_store``: where content goes that is too long for spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from otelgw.config.document import Location
from otelgw.config.section import Section
from otelgw.config.settings import BlobStore
from otelgw_exporters import options
from otelgw_exporters.catalog import Row
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.rows import blob_stores

if TYPE_CHECKING:
    from otelgw.config.context import Context

__all__ = ["BlobStoreSection", "blob_store"]

_DEFAULT = BlobStore("", {})
_LEAST = 256  # bytes: the least that content can be cut to, where the store does not take it
_LOCATION: Location = ("otelgw", "blob_store")


class BlobStoreSection(Section):
    """Long content goes there, and spans refer to it: see [logging controls](logging-controls.md#long-content). These
    keys and the options of the store: those of the destination of the same name that say where it is and who writes."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        default="directory",
        description=f"One of {', '.join(f'`{name}`' for name in blob_stores.TYPES)}. A directory has the option "
        "`path`, relative to the config file, or a `file://` URL.",
    )
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.=/-]*$", max_length=300)] = Field(
        default=_DEFAULT.prefix, description="Of every object's key; slashes divide it."
    )
    above: Annotated[int, Field(ge=_LEAST, le=2**30)] = Field(
        default=_DEFAULT.above,
        description="Bytes of one attribute with content; what is longer goes there. A destination's "
        "`redact.limit` that is lower counts for that destination.",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def blob_store(section: BlobStoreSection | None, context: Context) -> BlobStore | None:
    """Return the blob store that the section describes, None without a section; problems are reported."""
    if section is None:
        return None
    try:
        row = blob_stores.row_of(section.type)
    except DestinationConfigError as error:
        context.findings.error((*_LOCATION, "type"), str(error))
        return None
    given = {name: value for name, value in section.options.items() if _usable(row, name, value, context)}
    for option in row.options:
        path = given.get(option.name)
        if option.kind == "path" and isinstance(path, str) and "://" not in path:
            given[option.name] = context.path(path)
    try:
        found = options.complete(row, given, context.environment)
    except DestinationConfigError as error:
        context.findings.error(_LOCATION, str(error))
        return None
    return BlobStore(section.type, found, section.prefix, section.above)


def _usable(row: Row, name: str, value: Any, context: Context) -> bool:
    """Check one option by itself, so that each problem is reported on its own line."""
    alone: Mapping[str, Any] = {name: value}
    try:
        options.resolve(row, alone, {})
    except DestinationConfigError as error:
        context.findings.error((*_LOCATION, name), str(error))
        return False
    return True
