"""A worker process: serves the gateway on the master's socket until it is told to stop.

Started by the master as ``python -m otelgw.worker``. SIGTERM drains: new requests are refused, what runs may finish up
to the drain limit. SIGUSR1 retires: other workers take new connections, what runs on this one's may finish. More of
them change nothing: to end a worker now is to kill it. SIGINT and SIGHUP are the master's. When the master is gone, a
worker retires, so that the port is free for another master at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from otelgw import logs
from otelgw.app import build
from otelgw.config.settings import Settings
from otelgw.http.gateway import Gateway
from otelgw.http.servers import SERVERS
from otelgw.process import announce, read_settings
from otelgw.spool import Spool
from otelgw.tally import Counts, Tally

__all__ = ["Worker", "main"]

log = logging.getLogger("otelgw.worker")  # not `__main__`, which it is run as

_DESCRIPTORS = 1024 * 64  # wanted at least: a stream takes two, and many systems give a process 1024


class Worker:
    """One worker's life, from the first signal handler to the last connection."""

    def __init__(self, settings: Settings, gateway: Gateway, tally: Tally | None = None) -> None:
        self.settings = settings
        self.gateway = gateway
        self.stop = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._refusing = False
        self._tally = tally
        self._limit = 0.0  # when what still runs is cut, in the loop's time

    async def serve(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Serve until the worker has drained."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.begin_stop, True)
        loop.add_signal_handler(signal.SIGUSR1, self.begin_stop, False)
        await self._watch_master(loop)
        tallying = None if self._tally is None else loop.create_task(self._tally.keep())
        try:
            await SERVERS[self.settings.server.kind](self.gateway, self.settings, descriptor, self.stop, ready)
        finally:
            if tallying is not None:
                tallying.cancel()
                await asyncio.wait({tallying})
            _heed_no_more(loop, signal.SIGTERM, signal.SIGUSR1)

    async def _watch_master(self, loop: asyncio.AbstractEventLoop) -> None:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def wait() -> None:
            while await reader.read(1024):
                pass
            log.warning("the master is gone; finishing what runs")
            self.begin_stop(False)

        self._watching = loop.create_task(wait())

    def begin_stop(self, refuse: bool) -> None:
        """Stop: with ``refuse`` new work gets 503 until the last request is done, else it is left to other workers."""
        if self._stopping is not None:
            # SIGTERM may come twice: from a service manager that tells every process, and from the master.
            if self._refusing or not refuse:
                return
            self._stopping.cancel()
        loop = asyncio.get_running_loop()
        self._refusing = refuse
        self._limit = self._limit or loop.time() + self.settings.server.drain
        left = max(self._limit - loop.time(), 0.0)
        self._stopping = loop.create_task(self._drain(left) if refuse else self._retire(left))

    async def _drain(self, seconds: float) -> None:
        await self.gateway.drain(seconds)
        self.stop.set()

    async def _retire(self, seconds: float) -> None:
        self.stop.set()
        # Connections that are in use may still bring requests: those are served, up to the limit.
        await asyncio.sleep(seconds)
        await self.gateway.drain(0, refuse=False)


def _event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _settle_garbage() -> None:
    """Take what was loaded at start out of the collector's sight: it lives as long as the process, and walking it on
    every few hundred allocations costs a request more than relaying it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _heed_no_more(loop: asyncio.AbstractEventLoop, *numbers: signal.Signals) -> None:
    """Ignore signals from here on: the loop restores their defaults when it closes, and one more would be deadly."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _leave_signals_to_master() -> None:
    masters = {signal.SIGINT, signal.SIGHUP}
    for number in masters:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, masters)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, max(_DESCRIPTORS, soft))
    if soft not in {resource.RLIM_INFINITY, wanted} and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _why(error: Exception, settings: Settings) -> str:
    server = settings.server
    if isinstance(error, ModuleNotFoundError):
        return f"the server {server.kind} is not installed ({error.name}): pip install 'otelgw[{server.kind}]'"
    if server.certfile or server.keyfile:
        return f"{error}: can {server.certfile} be read, and is {server.keyfile} its key?"
    return str(error)


def _counted(gateway: Gateway, spool: Spool | None) -> Counts:
    found = gateway.counters
    reasons = (("refused", found.refused), ("flood", found.floods), ("timeout", found.timeouts))
    unwritten = (("disk", gateway.unspooled), ("quota", spool.over_quota if spool is not None else 0))
    return {
        **{("otelgw.http.refusals", (("reason", reason),)): count for reason, count in reasons},
        **{("otelgw.spool.unwritten_records", (("reason", reason),)): count for reason, count in unwritten},
        ("otelgw.spool.failed_syncs", ()): spool.unsynced if spool is not None else 0,
        ("otelgw.keys.uncounted_requests", ()): gateway.keys.uncounted if gateway.keys is not None else 0,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run one worker; the master passes the socket's descriptor, an index and a descriptor to report on."""
    parser = argparse.ArgumentParser(prog="otelgw.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args(arguments)
    _leave_signals_to_master()
    try:
        settings = read_settings()
    except EOFError:
        # The master has gone before it said anything.
        return 1
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    _raise_descriptor_limit()
    spool = None
    # A pid comes again; with the time of the start the name does not.
    name = f"w{options.index}_{os.getpid()}_{int(time.time())}"
    if not settings.tracing.disabled:
        directory = Path(settings.state_dir) / "spool"
        spool = Spool(directory, name, settings.spool, workers=settings.server.workers)
    gateway = build(settings, spool)
    tally = Tally(Path(settings.state_dir), name, lambda: _counted(gateway, spool))
    _settle_garbage()
    try:
        with asyncio.Runner(loop_factory=_event_loop) as runner:
            runner.run(Worker(settings, gateway, tally).serve(options.fd, lambda: announce(options.ready_fd)))
    except (OSError, ModuleNotFoundError) as error:
        log.error("cannot serve: %s", _why(error, settings))  # noqa: TRY400 - the message says what and how to mend it
        return 1
    finally:
        if spool is not None:
            spool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
