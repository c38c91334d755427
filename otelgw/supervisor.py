"""The master process: binds the socket, starts workers and the pipeline, restarts what dies, carries signals.

The master does no work of its own, so that nothing but a signal ends it. Children read their settings from standard
input and notice by its end when the master is gone. SIGTERM and SIGINT drain and exit 0, a second one exits now;
SIGHUP reloads the config: new workers start on the new settings before the old ones retire, and a config with errors
changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from otelgw import banner, logs
from otelgw.config.settings import Settings
from otelgw.errors import ConfigError, StartError
from otelgw.process import pack

__all__ = ["Child", "Supervisor", "bind", "lock_state", "run"]

log = logging.getLogger(__name__)

_READY_WITHIN = 60.0  # seconds
_FIRST_BACKOFF = 0.1
_LAST_BACKOFF = 10.0
_HEALTHY_AFTER = 30.0  # a child that lived this long starts its back-off anew
_PIPELINE_GRACE = 12.0  # seconds for the pipeline to deliver what it can
_DRAIN_GRACE = 8.0  # seconds on top of the drain limit before a worker is killed


@dataclass
class Child:
    """One child process and its restarts. ``role`` is "worker" or "pipeline"."""

    role: str
    index: int
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    ready_fd: int = -1
    ready: bool = False
    started: float = 0.0
    failures: int = 0
    restart_at: float = 0.0
    retiring: bool = False
    kill_at: float = 0.0

    @property
    def name(self) -> str:
        return f"worker {self.index}" if self.role == "worker" else self.role

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


def bind(settings: Settings) -> socket.socket:
    """Return the listening socket.

    Raises:
        StartError: the port is busy or the address is not this machine's.
    """
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}. Stop what uses the port, or choose another with --port."
        ) from None
    listener.set_inheritable(True)
    return listener


def lock_state(directory: Path) -> int:
    """Make the state directory private and lock it; return the lock's descriptor, which holds it while it is open.

    Raises:
        StartError: another instance holds it, or it cannot be made.
    """
    try:
        (directory / "spool").mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (directory, directory / "spool"):
            path.chmod(0o700)
        descriptor = os.open(directory / "otelgw.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"the state directory {directory} cannot be used: {error.strerror}. Choose another with otelgw.state_dir "
            "or OTELGW_STATE_DIR."
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StartError(
            f"the state directory {directory} is in use by pid {holder}. Stop it, or choose another with "
            "otelgw.state_dir or OTELGW_STATE_DIR."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


@dataclass
class Supervisor:
    """The master's loop. ``reload`` returns new settings or raises ``ConfigError``."""

    settings: Settings
    reload: Callable[[], Settings]
    listener: socket.socket
    children: list[Child] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _wake: tuple[int, int] = (-1, -1)

    def run(self) -> int:
        """Run until a signal ends it; return the exit status."""
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        previous = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        for number in handled:
            signal.signal(number, self._note)
        try:
            self._start()
            return self._loop()
        finally:
            self._kill_all()
            signal.set_wakeup_fd(previous)
            for number in handled:
                signal.signal(number, signal.SIG_DFL)
            os.close(self._wake[0])
            os.close(self._wake[1])

    def _note(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _wait(self, seconds: float) -> None:
        readable, _, _ = select.select([self._wake[0]], [], [], max(seconds, 0))
        if readable:
            os.read(self._wake[0], 4096)

    # Starting

    def _start(self) -> None:
        """Start everything and wait until all of it is ready.

        Raises:
            StartError: a child ended before it was ready.
        """
        self.children = self._new_children(self.settings)
        for child in self.children:
            self._spawn(child)
        self._await_ready(self.children)
        sys.stderr.write(banner.start(self.settings))
        sys.stderr.flush()

    def _new_children(self, settings: Settings) -> list[Child]:
        children = [Child("worker", index, settings) for index in range(settings.server.workers)]
        if not settings.tracing.disabled:
            children.append(Child("pipeline", 0, settings))
        return children

    def _spawn(self, child: Child) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", f"otelgw.{'worker' if child.role == 'worker' else 'pipeline_main'}"]
        passed = [writer]
        if child.role == "worker":
            command += ["--fd", str(self.listener.fileno()), "--index", str(child.index)]
            passed.append(self.listener.fileno())
        command += ["--ready-fd", str(writer)]
        try:
            child.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=passed)  # noqa: S603 - ourselves
        finally:
            os.close(writer)
        child.ready, child.ready_fd, child.started = False, reader, time.monotonic()
        try:
            child.process.stdin.write(pack(child.settings))  # type: ignore[union-attr]
            child.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            log.error("%s ended before it read its settings", child.name)  # noqa: TRY400 - the child says why

    def _await_ready(self, children: list[Child]) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        waiting = [child for child in children if not child.ready]
        while waiting:
            readable, _, _ = select.select([child.ready_fd for child in waiting], [], [], 0.2)
            for child in [child for child in waiting if child.ready_fd in readable]:
                if not os.read(child.ready_fd, 16):
                    raise StartError(f"{child.name} ended before it was ready; its last lines above say why.")
                self._mark_ready(child)
            waiting = [child for child in waiting if not child.ready]
            if self._signals and self._signals[0] != signal.SIGHUP:
                raise StartError("stopped before it was ready.")
            if time.monotonic() > deadline:
                raise StartError(f"{', '.join(child.name for child in waiting)} not ready in {_READY_WITHIN:.0f} s.")

    def _mark_ready(self, child: Child) -> None:
        child.ready = True
        os.close(child.ready_fd)
        child.ready_fd = -1

    # Running

    def _loop(self) -> int:
        while True:
            while self._signals:
                number = self._signals.pop(0)
                if number == signal.SIGHUP:
                    self._reload()
                else:
                    return self._stop()
            self._reap()
            self._wait(self._next_event())

    def _next_event(self) -> float:
        now = time.monotonic()
        moments = [m for child in self.children for m in (child.restart_at, child.kill_at) if m]
        return max(min(moments) - now, 0.0) if moments else 60.0

    def _reap(self) -> None:
        """Restart what died, with back-off; forget what was to go; kill what overstays."""
        now = time.monotonic()
        for child in list(self.children):
            if child.alive:
                if child.kill_at and now > child.kill_at:
                    child.process.kill()  # type: ignore[union-attr]
                    child.kill_at = now + 1
                continue
            if child.retiring:
                self._forget(child)
            elif not child.restart_at:
                self._plan_restart(child, now)
            elif now >= child.restart_at:
                child.restart_at = 0.0
                self._spawn(child)

    def _plan_restart(self, child: Child, now: float) -> None:
        status = child.process.returncode if child.process is not None else None
        child.failures = 0 if now - child.started > _HEALTHY_AFTER else child.failures + 1
        wait = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** max(child.failures - 1, 0))
        child.restart_at = now + wait
        self._close_pipes(child)
        log.error("%s ended with status %s; starting it again in %.1f s", child.name, status, wait)

    def _forget(self, child: Child) -> None:
        self._close_pipes(child)
        self.children.remove(child)

    def _close_pipes(self, child: Child) -> None:
        if child.process is not None and child.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.process.stdin.close()
        if child.ready_fd >= 0:
            os.close(child.ready_fd)
            child.ready_fd = -1

    # Reloading

    def _reload(self) -> None:
        """Load the config again; on any error everything stays as it is."""
        try:
            settings = self.reload()
        except ConfigError as error:
            log.error("reload refused, the old configuration stays: %s", "; ".join(error.problems))  # noqa: TRY400
            return
        except Exception:
            log.exception("reload failed, the old configuration stays")
            return
        old, server = list(self.children), self.settings.server
        settings = replace(
            settings,
            server=replace(settings.server, host=server.host, port=server.port),
            state_dir=self.settings.state_dir,
        )
        fresh = self._new_children(settings)
        workers = [child for child in fresh if child.role == "worker"]
        for child in workers:
            self._spawn(child)
        try:
            self._await_ready(workers)
        except StartError as error:
            log.error("reload failed, the old configuration stays: %s", error)  # noqa: TRY400
            for child in workers:
                self._close_pipes(child)
                if child.alive:
                    child.process.kill()  # type: ignore[union-attr]
            return
        self.settings = settings
        self.children = fresh + old
        for child in old:
            self._retire(child)
        self._replace_pipeline(old, fresh)
        log.info("configuration reloaded")

    def _retire(self, child: Child) -> None:
        child.retiring = True
        child.restart_at = 0.0
        if child.alive:
            number = signal.SIGUSR1 if child.role == "worker" else signal.SIGTERM
            child.process.send_signal(number)  # type: ignore[union-attr]
            grace = child.settings.server.drain + _DRAIN_GRACE if child.role == "worker" else _PIPELINE_GRACE
            child.kill_at = time.monotonic() + grace

    def _replace_pipeline(self, old: list[Child], fresh: list[Child]) -> None:
        """Start the new pipeline when the old one has let go of its lock; records wait in the spool meanwhile."""
        for child in [child for child in old if child.role == "pipeline"]:
            self._await_exit([child], _PIPELINE_GRACE)
        for child in [child for child in fresh if child.role == "pipeline"]:
            self._spawn(child)

    # Stopping

    def _stop(self) -> int:
        """Drain the workers, then the pipeline; return the exit status."""
        self.listener.close()
        workers = [child for child in self.children if child.role == "worker"]
        drain = max((child.settings.server.drain for child in workers), default=0.0)
        if not self._terminate(workers, drain + _DRAIN_GRACE):
            return 1
        pipelines = [child for child in self.children if child.role == "pipeline"]
        return 0 if self._terminate(pipelines, _PIPELINE_GRACE) else 1

    def _terminate(self, children: list[Child], seconds: float) -> bool:
        """Stop ``children``; return False where a second signal says now."""
        for child in children:
            if child.alive:
                child.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        return self._await_exit(children, seconds)

    def _await_exit(self, children: list[Child], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(child.alive for child in children):
            if any(number != signal.SIGHUP for number in self._signals):
                return False
            left = deadline - time.monotonic()
            if left <= 0:
                for child in children:
                    if child.alive:
                        log.error("%s does not stop; killing it", child.name)
                        child.process.kill()  # type: ignore[union-attr]
                deadline = time.monotonic() + 5
            self._wait(min(max(left, 0.05), 1.0))
        return True

    def _kill_all(self) -> None:
        for child in self.children:
            if child.alive:
                child.process.kill()  # type: ignore[union-attr]
            if child.process is not None:
                child.process.wait()
            self._close_pipes(child)


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve with ``settings`` until a signal ends it; return the exit status.

    Raises:
        StartError: a busy port, a locked state directory, a child that does not start.
    """
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    listener = bind(settings)
    try:
        lock = lock_state(Path(settings.state_dir))
        try:
            return Supervisor(settings, reload, listener).run()
        finally:
            os.close(lock)
    finally:
        listener.close()
