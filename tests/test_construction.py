from __future__ import annotations

from pathlib import Path

import pytest

from otelgw import cli
from otelgw.config.settings import Destination, Settings
from otelgw.construction import asked, problems

SECRET = "sk-secret-0123456789"
GOOD = Destination("console", "console")
HALF = Destination("s3/half", "s3", {"bucket": "b", "region": "eu-west-1", "access_key_id": SECRET})


@pytest.mark.parametrize("find", [problems, asked])
def test_a_destination_that_cannot_be_made_is_named_and_its_secret_is_not(find: object) -> None:
    assert callable(find)
    assert find(Settings(destinations=(GOOD,))) == []
    (said,) = find(Settings(destinations=(GOOD, HALF)))
    assert "s3/half" in said
    assert SECRET not in said


def test_check_finds_what_only_making_a_destination_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "otelgw:\n  destinations:\n    - {name: s3/half, bucket: b, region: eu-west-1, access_key_id: " + SECRET + "}\n"
    )

    assert cli.main(["check", "--config", str(config)]) == 2
    assert "s3/half" in capsys.readouterr().out
