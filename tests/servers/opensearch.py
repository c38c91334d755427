"""A real OpenSearch node, as the project publishes it for integration tests: the server, without security."""

from __future__ import annotations

from pathlib import Path

from tests.servers import maven
from tests.servers.elasticsearch import SearchNode

__all__ = ["OpenSearch", "build", "find"]

_VERSION = "3.4.0"
_ARTIFACT = f"org.opensearch.distribution.integ-test-zip:opensearch:{_VERSION}:zip"
_PROGRAM = f"opensearch-{_VERSION}/bin/opensearch"


def find() -> Path | None:
    """Return the server's program; None if it was not fetched or cannot run here."""
    return maven.find("opensearch", _ARTIFACT, _PROGRAM)


def build() -> Path:
    """Fetch the server, unless it is there."""
    return maven.build("opensearch", _ARTIFACT, _PROGRAM)


class OpenSearch(SearchNode):
    """A running node that anybody may use."""

    def __init__(self, program: Path) -> None:
        super().__init__(program, "OPENSEARCH", "", None)
