from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otelgw_collector.segments import SegmentWriter
from tests.collector.destinations import Spool
from tests.exporters.conftest import certificates

__all__ = ["certificates"]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A place for segments and what goes with them."""
    return Spool(tmp_path)


@pytest.fixture
def writer(spool: Spool) -> Iterator[SegmentWriter]:
    """A worker's writer into ``spool``."""
    made = SegmentWriter(spool.segments, "w0")
    yield made
    made.close()
