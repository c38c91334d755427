from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otelgw_exporters import catalog
from otelgw_exporters.delivery import Exporter
from tests.servers.otlp import Certificates

_CLOUDS = ("AWS_", "AZURE_", "GCS_", "GOOGLE_", "IDENTITY_")  # read by the clouds' own libraries, too


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which no destination and no cloud is set up: no variables, no metadata service, and of AWS's files
    none but what a test writes to ``config`` and ``credentials`` in its directory."""
    for name in [name for name in os.environ if name.startswith(_CLOUDS)]:
        monkeypatch.delenv(name)
    for name in {name for row in catalog.ROWS for names in row.env.values() for name in names}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def closing() -> Iterator[Callable[[Exporter], Exporter]]:
    """Shuts down the exporters that it is given, when the test is over."""
    exporters: list[Exporter] = []

    def keep(exporter: Exporter) -> Exporter:
        exporters.append(exporter)
        return exporter

    yield keep
    for exporter in exporters:
        exporter.shutdown()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority, and what it signed for a server on loopback and for a client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make certificates with")
    home = tmp_path_factory.mktemp("certificates")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True)

    names = home / "names"
    names.write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # With what Python 3.13 asks of a certificate authority.
    extensions = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("req", "-x509", *new, *extensions, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=tests")
    for name in ("server", "client"):
        run("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", str(names))
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    paths = ("ca.pem", "server.key", "server.pem", "client.key", "client.pem")
    return Certificates(*(Path(home, path) for path in paths))
