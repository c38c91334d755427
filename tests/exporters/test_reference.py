from __future__ import annotations

from pathlib import Path

from otelgw_exporters import catalog, reference
from otelgw_exporters.rows import PROOFS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "destinations.md"


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text() == reference.page(), "python -m otelgw_exporters.reference > docs/reference/destinations.md"


def test_every_destination_says_how_strong_its_proof_is() -> None:
    assert [row.name for row in catalog.ROWS if row.proof not in PROOFS] == []
