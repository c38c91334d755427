"""Loading a config from text, with an environment of the test's own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from otelgw.config.flags import Flags
from otelgw.config.load import Outcome, examine

Examine = Callable[..., Outcome]


@pytest.fixture
def examine_text(tmp_path: Path) -> Examine:
    """Return a function that examines a config text; ``dotenv`` is written beside it."""

    def run(
        text: str, environment: Mapping[str, str] | None = None, flags: Flags | None = None, dotenv: str = ""
    ) -> Outcome:
        path = tmp_path / "config.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        if dotenv:
            (tmp_path / ".env").write_text(textwrap.dedent(dotenv), encoding="utf-8")
        return examine(str(path), {"HOME": str(tmp_path), **(environment or {})}, flags, prices=False)

    return run
