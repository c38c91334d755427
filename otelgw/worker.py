"""A worker process: serves the gateway on the master's socket until it is told to stop.

Started by the master as ``python -m otelgw.worker``. SIGTERM drains (no new work, what runs may finish), SIGUSR1
retires (another worker takes over: stop accepting, finish), a second signal exits now. SIGINT is the master's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
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
from otelgw_collector.segments import SegmentWriter

__all__ = ["main"]

log = logging.getLogger(__name__)


class Worker:
    """One worker's life, from the first signal handler to the last connection."""

    def __init__(self, settings: Settings, gateway: Gateway) -> None:
        self.settings = settings
        self.gateway = gateway
        self.stop = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    async def serve(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Serve until the worker has drained."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.begin_stop, True)
        loop.add_signal_handler(signal.SIGUSR1, self.begin_stop, False)
        # The master carries ^C to its children, in order; the terminal sends it to all at once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        await self._watch_master(loop)
        await SERVERS[self.settings.server.kind](self.gateway, self.settings, descriptor, self.stop, ready)

    async def _watch_master(self, loop: asyncio.AbstractEventLoop) -> None:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def wait() -> None:
            while await reader.read(1024):
                pass
            log.warning("the master is gone; draining")
            self.begin_stop(True)

        self._watching = loop.create_task(wait())

    def begin_stop(self, refuse: bool) -> None:
        """Stop: with ``refuse`` new work gets 503 until the last request is done, else it is left to other workers."""
        if self._stopping is not None:
            if refuse:
                os._exit(1)
            return
        self._stopping = asyncio.get_running_loop().create_task(self._stop(refuse))

    async def _stop(self, refuse: bool) -> None:
        limit = self.settings.server.drain
        if not refuse:
            self.stop.set()
        await self.gateway.drain(limit, refuse=refuse)
        self.stop.set()


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


def main(arguments: list[str] | None = None) -> int:
    """Run one worker; the master passes the socket's descriptor, an index and a descriptor to report on."""
    parser = argparse.ArgumentParser(prog="otelgw.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args(arguments)
    settings = read_settings()
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    spool = None
    if not settings.tracing.disabled:
        # A pid comes again; with the time of the start the name does not.
        name = f"w{options.index}_{os.getpid()}_{int(time.time())}"
        spool = SegmentWriter(Path(settings.state_dir) / "spool", name)
    gateway = build(settings, spool)
    _settle_garbage()
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        runner.run(Worker(settings, gateway).serve(options.fd, lambda: announce(options.ready_fd)))
    if spool is not None:
        spool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
