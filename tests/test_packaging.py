"""What is shipped: the wheel, the imports and the direction they point in."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

from otelgw_exporters.catalog import ROWS

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "otelgw": ROOT / "otelgw",
    "otelgw_collector": ROOT / "collector/otelgw_collector",
    "otelgw_exporters": ROOT / "exporters/otelgw_exporters",
}
# Imports every module and prints what an import must not do: see the audit events of the standard library.
IMPORT_ALL = """
import os, pkgutil, sys, threading

environment = dict(os.environ)
module = ""
found = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
EVENTS = {"socket.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename",
          "os.putenv", "os.unsetenv", "os.system", "os.fork", "os.posix_spawn", "signal.signal", "sqlite3.connect"}

def hook(event, args):
    if event in EVENTS:
        found.append(f"{module}: {event} {args!r:.200}")
    elif event == "open" and isinstance(args[2], int) and args[2] & WRITES:
        found.append(f"{module}: writes {args[0]}")

sys.addaudithook(hook)
import otelgw, otelgw_collector, otelgw_exporters

imported = 0
for package in (otelgw, otelgw_collector, otelgw_exporters):
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        module = info.name
        __import__(module)
        imported += 1
module = "after all imports"
if dict(os.environ) != environment:
    found.append("os.environ was changed")
if threading.active_count() != 1:
    found.append(f"threads were started: {threading.enumerate()}")
api = sys.modules.get("opentelemetry.trace")
if api and api._TRACER_PROVIDER is not None:
    found.append("a global TracerProvider was set")
print(f"imported {imported}")
print("\\n".join(found))
sys.exit(bool(found))
"""


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    built = _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT))
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    (path,) = distributions.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {f"{name}/py.typed" for name in PACKAGES} <= held


def test_every_destination_is_an_exporter_for_any_opentelemetry_application(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    registered = ConfigParser(delimiters="=")
    registered.read_string(wheel.read(name).decode())
    assert dict(registered["opentelemetry_traces_exporter"]) == {f"otelgw_{row.name}": row.factory for row in ROWS}


def test_the_wheel_has_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "otelgw = otelgw.cli:main" in wheel.read(names["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in names
    metadata = Parser().parsestr(wheel.read(names["METADATA"]).decode())
    assert metadata["Requires-Python"] == ">=3.11"
    assert not [line for line in metadata.get_all("Requires-Dist", []) if line.lower().startswith("litellm")]


def test_the_command_runs_from_the_installed_wheel(distributions: Path, tmp_path: Path) -> None:
    (path,) = distributions.glob("*.whl")
    target = tmp_path / "site"
    installed = _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(path))
    assert installed.returncode == 0, installed.stderr
    script = f"import sys; sys.path.insert(0, {str(target)!r}); import otelgw.cli as cli; print(cli.__file__)"
    started = _run(sys.executable, "-c", f"{script}; sys.argv = ['otelgw', '--version']; cli.main()", cwd=tmp_path)
    assert str(target) in started.stdout, started.stderr
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in started.stdout


def test_importing_any_module_has_no_side_effect(tmp_path: Path) -> None:
    done = _run(sys.executable, "-B", "-c", IMPORT_ALL, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[1]) >= sum(len(list(folder.rglob("*.py"))) for folder in PACKAGES.values()) - len(
        PACKAGES
    )
    assert list(tmp_path.iterdir()) == []


def test_imports_point_the_way_data_flows() -> None:
    done = _run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_of_independence_names_every_destination() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (independence,) = (contract for contract in contracts if contract["type"] == "independence")
    assert {row.factory.partition(":")[0] for row in ROWS} == set(independence["modules"])
