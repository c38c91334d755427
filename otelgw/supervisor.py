"""The master process: binds the socket, starts workers and the pipeline, restarts what dies, carries signals.

The master does no work of its own, so that nothing but a signal ends it. Children read their settings from standard
input and notice by its end when the master is gone. SIGTERM and SIGINT drain and exit 0, a second one exits now;
SIGHUP reloads the config: new workers start on the new settings before the old ones retire, and a config with errors
changes nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from otelgw import banner, logs
from otelgw.child import PIPELINE, RECEIVER, WORKER, Child
from otelgw.config.settings import Settings
from otelgw.construction import asked
from otelgw.errors import ConfigError, StartError

__all__ = ["Supervisor", "bind", "lock_state", "run"]

log = logging.getLogger(__name__)

_READY_WITHIN = 60.0  # seconds
_PIPELINE_GRACE = 12.0  # seconds for the pipeline to deliver what it can
_DRAIN_GRACE = 8.0  # seconds on top of the drain limit before a worker is killed
_LONGEST_WAIT = 5.0


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
    _fresh: list[Child] = field(default_factory=list)  # of a reload in progress
    _signals: list[int] = field(default_factory=list)
    _wake: tuple[int, int] = (-1, -1)

    def run(self) -> int:
        """Run until a signal ends it; return the exit status.

        Raises:
            StartError: a child ended before it was ready.
        """
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        previous = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        for number in handled:
            signal.signal(number, self._note)
        try:
            return self._loop() if self._start() else 0
        finally:
            for child in self.children:
                child.kill()
            signal.set_wakeup_fd(previous)
            for number in handled:
                signal.signal(number, signal.SIG_DFL)
            for end in self._wake:
                os.close(end)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    @property
    def _is_stopping(self) -> bool:
        return any(number != signal.SIGHUP for number in self._signals)

    def _wait(self, seconds: float) -> None:
        """Wait for a signal or for a child that says something or wants to hear something, ``seconds`` at most."""
        telling = {child.input_fd: child for child in self._known if child.to_be_told}
        hearing = {child.ready_fd: child for child in self._known if child.ready_fd >= 0}
        readable, writable, _ = select.select([self._wake[0], *hearing], list(telling), [], max(seconds, 0))
        for descriptor in writable:
            telling[descriptor].tell()
        for descriptor in readable:
            if descriptor in hearing:
                hearing[descriptor].hear()
            else:
                os.read(descriptor, 4096)

    @property
    def _known(self) -> list[Child]:
        return [*self.children, *self._fresh]

    # Starting

    def _start(self) -> bool:
        """Start everything and wait until all of it is ready; return False where a signal says stop."""
        self.children = self._spawned(self._planned(self.settings))
        if not self._are_ready(self.children):
            return False
        sys.stderr.write(banner.start(self.settings))
        sys.stderr.flush()
        return True

    def _planned(self, settings: Settings) -> list[Child]:
        children = [Child(WORKER, index, settings) for index in range(settings.server.workers)]
        if not settings.tracing.disabled:
            children.append(Child(PIPELINE, 0, settings))
            if settings.receiver is not None:
                children.append(Child(RECEIVER, 0, settings))
        return children

    def _spawned(self, children: list[Child]) -> list[Child]:
        for child in children:
            child.spawn(self.listener.fileno())
        return children

    def _are_ready(self, children: list[Child]) -> bool:
        """Wait until ``children`` are ready; return False where a signal says stop.

        Raises:
            StartError: one ended before, or took too long.
        """
        deadline = time.monotonic() + _READY_WITHIN
        while waiting := [child for child in children if not child.ready]:
            if self._is_stopping:
                return False
            for child in waiting:
                if child.ready_fd < 0:
                    raise StartError(f"{child.name} ended before it was ready; its last lines above say why.")
            left = deadline - time.monotonic()
            if left <= 0:
                raise StartError(f"{', '.join(child.name for child in waiting)} not ready in {_READY_WITHIN:.0f} s.")
            self._wait(left)
        return True

    # Running

    def _loop(self) -> int:
        while True:
            while self._signals:
                if self._signals.pop(0) != signal.SIGHUP:
                    return self._stop()
                self._reload()
            self._reap()
            self._wait(self._next_event())

    def _next_event(self) -> float:
        moments = [moment for child in self.children for moment in (child.restart_at, child.kill_at) if moment]
        return min(moments) - time.monotonic() if moments else 60.0

    def _reap(self) -> None:
        """Restart what died, with back-off; forget what was to go; kill what overstays."""
        now = time.monotonic()
        for child in list(self.children):
            if child.alive:
                if child.kill_at and now >= child.kill_at:
                    log.error("%s does not stop; killing it", child.name)
                    child.kill()
            elif child.retiring:
                child.close()
                self.children.remove(child)
            elif not child.restart_at:
                status = child.process.returncode if child.process is not None else None
                name = child.name
                log.error("%s ended with status %s; starting it again in %.1f s", name, status, child.plan_restart())
            elif now >= child.restart_at:
                self._restart(child)

    def _restart(self, child: Child) -> None:
        child.restart_at = 0.0
        try:
            child.spawn(self.listener.fileno())
        except OSError as error:
            wait = child.plan_restart()
            log.error("%s cannot be started: %s; trying again in %.1f s", child.role, error.strerror, wait)  # noqa: TRY400

    # Reloading

    def _reload(self) -> None:
        """Load the config again; on any error everything stays as it is."""
        try:
            settings = self._kept(self.reload())
        except ConfigError as error:
            for problem in error.problems:
                log.error("reload refused: %s", problem)  # noqa: TRY400 - the problem says it all
            count = "1 problem" if len(error.problems) == 1 else f"{len(error.problems)} problems"
            log.error("the old configuration stays: %s in the new one", count)  # noqa: TRY400
            return
        except Exception:
            log.exception("reload failed, the old configuration stays")
            return
        wrong = asked(settings)
        for problem in wrong:
            log.error("reload refused: %s", problem)
        if wrong:
            log.error("the old configuration stays: of the new one's destinations %d cannot be made", len(wrong))
            return
        fresh = self._planned(settings)
        workers = [child for child in fresh if child.role == WORKER]
        try:
            self._fresh = workers
            self._spawned(workers)
            ready = self._are_ready(workers)
        except (StartError, OSError) as error:
            log.error("reload failed, the old configuration stays: %s", error)  # noqa: TRY400
            ready = False
        finally:
            self._fresh = []
        if not ready:
            for child in workers:
                child.kill()
            return
        old, self.settings, self.children = self.children, settings, fresh + self.children
        for child in old:
            self._retire(child)
        for child in fresh:
            if child.role != WORKER:
                # It waits for the lock that the old one holds; records wait in the spool, senders come again meanwhile.
                self._restart(child)
        log.info("configuration reloaded")

    def _kept(self, settings: Settings) -> Settings:
        """Return ``settings`` with what only a restart can change as it is."""
        old, new = self.settings.server, settings.server
        if (new.host, new.port) != (old.host, old.port) and new.port:
            log.warning("the address stays %s:%d until a restart", old.host, old.port)
        if settings.state_dir != self.settings.state_dir:
            log.warning("the state directory stays %s until a restart", self.settings.state_dir)
        server = replace(new, host=old.host, port=old.port)
        return replace(settings, server=server, state_dir=self.settings.state_dir)

    def _retire(self, child: Child) -> None:
        if child.retiring:
            return
        child.retiring = True
        child.restart_at = 0.0
        child.signal(signal.SIGUSR1 if child.role == WORKER else signal.SIGTERM)
        grace = child.settings.server.drain + _DRAIN_GRACE if child.role == WORKER else _PIPELINE_GRACE
        child.kill_at = time.monotonic() + grace

    # Stopping

    def _stop(self) -> int:
        """Drain the workers and the receiver, then the pipeline; return the exit status."""
        self.listener.close()
        workers = [child for child in self.children if child.role != PIPELINE]
        drain = max((child.settings.server.drain for child in workers), default=0.0)
        if not self._end(workers, drain + _DRAIN_GRACE):
            return 1
        pipelines = [child for child in self.children if child.role == PIPELINE]
        if pipelines and not any(child.alive for child in pipelines):
            # It died, or was stopped beside the master, before the workers had written their last records.
            pipelines = [child for child in pipelines if not child.retiring]
            if not self._brought_back(pipelines):
                return 1 if self._is_stopping else 0
        return 0 if self._end(pipelines, _PIPELINE_GRACE) else 1

    def _brought_back(self, pipelines: list[Child]) -> bool:
        for child in pipelines:
            child.close()
        try:
            return self._are_ready(self._spawned(pipelines))
        except (StartError, OSError) as error:
            log.error("what is not delivered stays in the spool: %s", error)  # noqa: TRY400
            return False

    def _end(self, children: Iterable[Child], seconds: float) -> bool:
        """Stop ``children`` within ``seconds``; return False where a second signal says now."""
        children = list(children)
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while running := [child for child in children if child.alive]:
            if self._is_stopping:
                return False
            if time.monotonic() >= deadline:
                for child in running:
                    log.error("%s does not stop; killing it", child.name)
                    child.kill()
            self._wait(min(max(deadline - time.monotonic(), 0.0), _LONGEST_WAIT))
        return True


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve with ``settings`` until a signal ends it; return the exit status.

    Raises:
        StartError: a busy port, a locked state directory, a child that does not start.
    """
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    # Whatever this process and its children write is for their user alone.
    os.umask(0o077)
    with bind(settings) as listener:
        port = listener.getsockname()[1]
        settings = replace(settings, server=replace(settings.server, port=port))
        lock = lock_state(Path(settings.state_dir))
        try:
            return Supervisor(settings, reload, listener).run()
        finally:
            os.close(lock)
