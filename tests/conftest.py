"""For all tests: what one of them does to the process's logging, or forgets to close, the next ones do not see."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def what_leaks_is_told_here() -> Iterator[None]:
    """What a file's tests left open is a warning of its last test, not of one that runs later and is not to blame."""
    yield
    gc.collect()
