"""Encoders of spans as OTLP has them, one a profile, shared by all destinations that want the same."""

from __future__ import annotations

from functools import lru_cache

from otelgw_exporters.otlp_wire import Encoder, Singly
from otelgw_exporters.semconv import BODIES, DIALECTS, FORMS, Profile

__all__ = ["encoder"]


@lru_cache(maxsize=32)
def encoder(profile: Profile) -> Encoder:
    """Return the encoder that all destinations of a profile share."""
    if profile.semconv not in DIALECTS:  # messages become attributes of their own: all are to be seen at once
        return Encoder(profile.attributes)
    dialect = DIALECTS[profile.semconv]
    singly = Singly(
        form=FORMS[profile.form],
        dropped=frozenset() if profile.bodies else BODIES,
        special=frozenset(dialect.renames) | frozenset(dialect.values) | dialect.doubles,
        merged=frozenset(dialect.renames.values()),
    )
    return Encoder(profile.attributes, singly)
