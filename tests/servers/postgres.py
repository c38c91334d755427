"""PostgreSQL, as the system's package has it (Debian: ``postgresql``): a private cluster on loopback.

::

    with Postgres(require("postgres")) as running:
        psycopg.connect(running.dsn)
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.ports import free_port

__all__ = ["Postgres", "build", "find"]

_LIMIT = 60.0  # seconds until it must be ready
_PASSWORD = "postgres-canary"


def find() -> Path | None:
    """Return the newest ``postgres`` that has an ``initdb`` beside it; None without one."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    places.sort(key=lambda place: [int(digits) for digits in re.findall(r"\d+", str(place))])
    on_path = shutil.which("postgres")
    places += [Path(on_path).resolve().parent] if on_path else []
    usable = [
        place / "postgres" for place in places if all((place / name).is_file() for name in ("postgres", "initdb"))
    ]
    return usable[-1] if usable else None


def build() -> Path:
    """Return the server; it is not built here.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = find()
    if found is None:
        raise FileNotFoundError("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    return found


class Postgres:
    """A running cluster with one superuser, whose password is in ``dsn``. As root it runs under another user."""

    def __init__(self, program: Path) -> None:
        self.port = free_port()
        self.dsn = f"postgresql://otelgw:{_PASSWORD}@127.0.0.1:{self.port}/postgres"
        self._program = program
        self._user = _unprivileged() if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        if self._user is not None:
            os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        try:
            password = self._home / "password"
            password.write_text(_PASSWORD)
            password.chmod(0o644)
            self._run("initdb", "-D", self._data, "-U", "otelgw", "-A", "scram-sha-256", f"--pwfile={password}", "-N")
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _run(self, name: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._program.with_name(name), *arguments],
            check=False,
            cwd=self._home,
            capture_output=True,
            text=True,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the server, also once more after ``stop``; returns when it takes connections."""
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", "fsync=off", "unix_socket_directories=")
        command: list[str | Path] = [self._program, "-D", self._data]
        command += [word for setting in settings for word in ("-c", setting)]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                stdout=log,
                stderr=log,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        log_file = self._home / "log"
        ready_before = log_file.read_text(errors="replace").count(_READY)
        deadline = time.monotonic() + _LIMIT
        while log_file.read_text(errors="replace").count(_READY) <= ready_before:
            assert self._process.poll() is None, log_file.read_text(errors="replace")
            assert time.monotonic() < deadline, log_file.read_text(errors="replace")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once; its connections are cut."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            if process.poll() is None:
                process.kill()
                process.wait(5)
        shutil.rmtree(self._home, ignore_errors=True)


_READY = "database system is ready to accept connections"


def _unprivileged() -> pwd.struct_passwd:
    """Return a user to run the server under: it refuses to run as root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError("there is neither a user postgres nor a user nobody to run PostgreSQL under")
