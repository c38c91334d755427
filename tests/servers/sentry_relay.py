"""Sentry's Relay as a library: what its ingestion makes of an event. Its licence (FSL) lets it stand for tests only."""

from __future__ import annotations

from pathlib import Path

from tests.servers import environment

__all__ = ["build", "find"]

_REQUIREMENTS = ("sentry-relay==0.10.1",)


def find() -> Path | None:
    """Return the Python that can import ``sentry_relay`` if it was installed."""
    return environment.find("sentry_relay", _REQUIREMENTS)


def build() -> Path:
    """Install it, unless it is there."""
    return environment.build("sentry_relay", _REQUIREMENTS)
