"""How much at a time a destination wants to be given."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Batches"]


class Batches(NamedTuple):
    """What an exporter's ``batching`` says, for a pipeline that collects: a batch goes out when it has ``records``
    calls or ``size`` bytes of records, or when its first one has waited for ``linger`` seconds."""

    records: int
    size: int
    linger: float
