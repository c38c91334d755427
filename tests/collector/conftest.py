from __future__ import annotations

from tests.exporters.conftest import certificates

__all__ = ["certificates"]
