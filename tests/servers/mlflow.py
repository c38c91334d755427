"""The real MLflow tracking server, in an environment of its own."""

from __future__ import annotations

from pathlib import Path

from tests.servers import environment
from tests.servers.ports import free_port
from tests.servers.process import Process

__all__ = ["build", "find", "running"]

_REQUIREMENTS = ("mlflow==3.17.2",)


def find() -> Path | None:
    """Return MLflow's program if it was installed."""
    return environment.find("mlflow", _REQUIREMENTS, "mlflow")


def build() -> Path:
    """Install MLflow, unless it is there; takes half a minute and 700 MB."""
    return environment.build("mlflow", _REQUIREMENTS, "mlflow")


def running(program: Path, directory: Path) -> Process:
    """Return a server that keeps its database in ``directory``."""
    port = free_port()
    command: list[str | Path] = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db", "--artifacts-destination", directory]
    # Without these it starts seven more processes of 200 MB, and calls home.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Process(command, port, env=env)
