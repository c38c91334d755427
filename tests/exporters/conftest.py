from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otelgw_exporters.delivery import Exporter
from tests.servers.otlp import Certificates


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
