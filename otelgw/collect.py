"""``otelgw collect``: the pipeline without a gateway, and the receiver that feeds it.

One process receives, the pipeline is its child, so that nothing a destination does delays a sender. SIGTERM and SIGINT
stop receiving, deliver what they can and exit 0; a second one exits now. SIGHUP reloads the config; one with errors
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import otelgw
from otelgw import logs
from otelgw.config.settings import Receiver, Settings
from otelgw.errors import ConfigError, StartError
from otelgw.process import pack
from otelgw.receiver_main import Receiving
from otelgw.supervisor import lock_state

__all__ = ["run", "start_line"]

log = logging.getLogger(__name__)

_READY_WITHIN = 60.0  # seconds
_GRACE = 12.0  # seconds for the pipeline to deliver what it can
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 10.0
_HEALTHY_AFTER = 30.0  # a pipeline that lived this long starts its back-off anew


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Receive and deliver with ``settings`` until a signal ends it; return the exit status.

    Raises:
        StartError: a busy port, a locked state directory, a pipeline that does not start.
    """
    logs.configure(settings.server.log_level, json_lines=settings.server.log_json or None)
    lock = lock_state(Path(settings.state_dir))
    try:
        return asyncio.run(_Collecting(settings, reload).run())
    finally:
        os.close(lock)


def start_line(settings: Settings) -> str:
    """Return the line that says what is received where, and where it goes."""
    found = settings.receiver or Receiver()
    scheme = "https" if found.certfile else "http"
    where = [f"grpc: {found.grpc}"] if found.grpc else []
    where += [f"http: {scheme}://{found.http}/v1/traces"] if found.http else []
    destinations = ", ".join(destination.name for destination in settings.destinations) or "none"
    facts = [*where, f"destinations: {destinations}", f"token: {'on' if found.token_sha256 else 'off'}"]
    lines = [f"otelgw {otelgw.__version__} collect  {'  '.join(facts)}  state: {settings.state_dir}"]
    lines += [f"warning: {warning}" for warning in settings.warnings]
    return "\n".join(lines) + "\n"


class _Pipeline:
    """The pipeline process, started again when it ends without having been told to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            StartError: it ended before.
        """
        if not await self._spawn():
            raise StartError("the pipeline ended before it was ready; its last lines above say why.")
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _spawn(self) -> bool:
        """Start the process; return whether it became ready."""
        reader, writer = os.pipe()
        try:
            command = [sys.executable, "-m", "otelgw.pipeline_main", "--ready-fd", str(writer)]
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, pass_fds=[writer]
            )
        finally:
            os.close(writer)
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(pack(self._settings))
                with contextlib.suppress(ConnectionError):
                    await self._process.stdin.drain()
            return bool(await asyncio.wait_for(asyncio.to_thread(os.read, reader, 16), _READY_WITHIN))
        except TimeoutError:
            self._process.kill()
            return False
        finally:
            os.close(reader)

    async def _keep(self) -> None:
        """Start the pipeline again whenever it ends, with back-off; what is received meanwhile is in the spool."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._process is not None:
            started = loop.time()
            status = await self._process.wait()
            failures = 0 if loop.time() - started > _HEALTHY_AFTER else failures + 1
            pause = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** max(failures - 1, 0))
            log.error("the pipeline ended with status %s; starting it again in %.1f s", status, pause)
            await asyncio.sleep(pause)
            await self._spawn()

    async def stop(self) -> None:
        """Have it deliver what it can, and end it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _GRACE)
            except TimeoutError:
                log.exception("the pipeline does not stop; killing it")
                process.kill()
        await process.wait()

    def kill(self) -> None:
        """End it now."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()


class _Collecting:
    """One run of the command."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reload = reload
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._pipeline = _Pipeline(settings)
        self._receiving = Receiving(settings)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            await self._pipeline.start()
            await self._receiving.start()
            sys.stderr.write(start_line(self._settings))
            sys.stderr.flush()
            while await self._signals.get() == signal.SIGHUP:
                await self._load_again()
            return await self._stop()
        finally:
            self._pipeline.kill()

    async def _stop(self) -> int:
        """Stop in order; return the exit status. A second signal ends everything at once."""
        stopping = asyncio.get_running_loop().create_task(self._finish())
        while not stopping.done():
            signalled = asyncio.get_running_loop().create_task(self._signals.get())
            await asyncio.wait({stopping, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if signalled.done() and signalled.result() != signal.SIGHUP:
                stopping.cancel()
                return 1
            signalled.cancel()
        await stopping
        return 0

    async def _finish(self) -> None:
        await self._receiving.stop()
        await self._pipeline.stop()

    async def _load_again(self) -> None:
        """Start anew on the config as it is now; on any error everything stays as it is."""
        try:
            settings = replace(self._reload(), state_dir=self._settings.state_dir)
        except ConfigError as error:
            log.error("reload refused, the old configuration stays: %s", "; ".join(error.problems))  # noqa: TRY400
            return
        await self._pipeline.stop()
        pipeline, receiving = _Pipeline(settings), Receiving(settings)
        await self._receiving.stop()
        try:
            await pipeline.start()
            await receiving.start()
        except StartError as error:
            log.error("reload failed, the old configuration stays: %s", error)  # noqa: TRY400
            await receiving.stop(0.0)
            await pipeline.stop()
            pipeline, receiving = _Pipeline(self._settings), Receiving(self._settings)
            await pipeline.start()
            await receiving.start()
        else:
            self._settings = settings
            log.info("configuration reloaded")
        self._pipeline, self._receiving = pipeline, receiving
