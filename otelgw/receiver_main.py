"""The receiver process: takes spans from other applications into the spool until it is told to stop.

Started by the master as ``python -m otelgw.receiver_main``. SIGTERM finishes what is being received, a second one ends
at once. When the master is gone it stops. SIGINT and SIGHUP are the master's.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from otelgw import logs
from otelgw.config.receiver import address
from otelgw.config.settings import Receiver, Settings
from otelgw.errors import StartError
from otelgw.pipeline_main import resource
from otelgw.process import announce, lock, read_settings
from otelgw.spool import sync_and_close
from otelgw.tally import Counts, Labels, Tally
from otelgw_collector.receiver import Intake
from otelgw_collector.receiver_grpc import GrpcReceiver
from otelgw_collector.receiver_http import HttpReceiver
from otelgw_collector.segments import SegmentWriter

__all__ = ["GroupCommit", "Receiving", "instance_of", "main"]

log = logging.getLogger("otelgw.receiver_main")  # not `__main__`, which it is run as

_STOP = 5.0  # seconds for requests that are under way


def instance_of(settings: Settings) -> str:
    """Return the ``service.instance.id`` of the gateway's own spans."""
    return str(resource(settings.tracing, settings.state_dir).attributes["service.instance.id"])


class GroupCommit:
    """Awaiting it returns when everything appended by then is on the disk: one sync for all that came meanwhile."""

    def __init__(self, unsynced: Callable[[], list[int]]) -> None:
        self._unsynced = unsynced
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Wait.

        Raises:
            OSError: the disk has refused.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._sync(self._running))
        await asyncio.shield(self._next)

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        # Who comes from now on may have appended after this sync: that one needs the next.
        self._running, self._next = self._next, None
        await asyncio.to_thread(sync_and_close, self._unsynced())


class Receiving:
    """The servers of one receiver and its segments, on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.receiver or Receiver()
        # A pid comes again; with the time of the start the name does not.
        name = f"r_{os.getpid()}_{time.time_ns() // 1_000_000}"
        fsync = settings.spool.fsync
        self._spool = SegmentWriter(Path(settings.state_dir) / "spool", name, durable=fsync)
        commit = GroupCommit(self._spool.unsynced) if fsync else None
        self.intake = Intake(self._spool, instance_of(settings), commit, settings.tracing.content)
        self._stops: list[Callable[[float], Awaitable[None]]] = []
        self._tally = Tally(Path(settings.state_dir), name, self._counted)
        self._tallying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            StartError: a busy port, an unusable certificate.
        """
        self._tallying = asyncio.get_running_loop().create_task(self._tally.keep())
        try:
            if self._settings.grpc:
                await self._start_grpc(self._settings.grpc)
            if self._settings.http:
                await self._start_http(self._settings.http)
        except StartError:
            await self.stop(0.0)
            raise

    async def _start_grpc(self, text: str) -> None:
        server = GrpcReceiver(
            self.intake,
            max_bytes=self._settings.max_request_bytes,
            token_sha256=self._settings.token_sha256,
            pair=self._pair(),
        )
        try:
            await server.start(text)
        except OSError:
            raise _busy(text, "grpc") from None
        self._stops.append(server.stop)

    async def _start_http(self, text: str) -> None:
        server = HttpReceiver(
            self.intake,
            max_bytes=self._settings.max_request_bytes,
            token_sha256=self._settings.token_sha256,
            tls=self._context(),
        )
        where = address(text)
        try:
            await server.start(where.host, where.port)
        except OSError:
            raise _busy(text, "http") from None
        self._stops.append(server.stop)

    def _pair(self) -> tuple[bytes, bytes] | None:
        found = self._settings
        if not found.certfile or not found.keyfile:
            return None
        self._context()  # gRPC does not say what is wrong with a certificate
        return Path(found.keyfile).read_bytes(), Path(found.certfile).read_bytes()

    def _context(self) -> ssl.SSLContext | None:
        found = self._settings
        if not found.certfile:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(found.certfile, found.keyfile)
        except OSError as error:
            raise StartError(
                f"the receiver's certificate {found.certfile} and key {found.keyfile} cannot be used: "
                f"{error.strerror or error}. Correct otelgw.receiver.ssl_certfile and ssl_keyfile."
            ) from None
        return context

    async def stop(self, limit: float = _STOP) -> None:
        """Take nothing any more; requests under way have ``limit`` seconds."""
        self.intake.stopping = limit <= 0
        await asyncio.gather(*(stop(limit) for stop in self._stops))
        self._stops.clear()
        self._spool.close()
        if self._tallying is not None:
            self._tallying.cancel()
            await asyncio.wait({self._tallying})
        counters = self.intake.counters
        log.info(
            "received %d requests with %d spans; refused %d spans that came from here, %d without valid ids, "
            "%d unreadable requests; asked %d requests to come again",
            *(counters.requests, counters.spans, counters.looped, counters.invalid),
            *(counters.unreadable, counters.unavailable),
        )

    def _counted(self) -> Counts:
        found = self.intake.counters
        counts: dict[tuple[str, Labels], int] = {}
        for name, count in (("accepted", found.spans), ("loop", found.looped), ("invalid", found.invalid)):
            counts["otelgw.receiver.spans", (("outcome", name),)] = count
        for (protocol, kind), count in found.answers.items():
            counts["otelgw.receiver.requests", (("protocol", protocol), ("answer", kind))] = count
        return counts


def _busy(text: str, name: str) -> StartError:
    return StartError(
        f"the receiver cannot listen on {text}. Stop what uses the port, or choose another with otelgw.receiver.{name}."
    )


async def _receive(settings: Settings, ready_fd: int) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stop)
    held = await asyncio.to_thread(lock, Path(settings.state_dir), "receiver")
    receiving = Receiving(settings)
    await receiving.start()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orphaned = loop.create_task(_wait_for_end(reader, stopping))
    announce(ready_fd)
    await stopping.wait()
    orphaned.cancel()
    await receiving.stop()
    os.close(held)


async def _wait_for_end(reader: asyncio.StreamReader, stopping: asyncio.Event) -> None:
    """Stop when standard input ends: the master holds its other end for as long as it lives."""
    while await reader.read(1024):
        pass
    if not stopping.is_set():
        log.warning("the master is gone; stopping")
        stopping.set()


def main(arguments: list[str] | None = None) -> int:
    """Run the receiver on the settings that come by standard input; return the exit status."""
    parser = argparse.ArgumentParser(prog="otelgw.receiver_main")
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = read_settings()
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    try:
        asyncio.run(_receive(settings, options.ready_fd))
    except StartError as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what and how to mend it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
