"""The process that runs one callback: ``python -m otelgw_exporters.callbacks.host --fd N``.

It reads frames from a socket, runs the callback for each and answers; when the other end is gone it ends. The event
loop runs all the time, so that tasks that a callback starts go on between two calls; plain hooks run in one thread of
their own, where they may block or start a loop. What the callback prints goes to the standard output, which is the
gateway's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import io
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from otelgw_exporters.callbacks import source
from otelgw_exporters.callbacks.event import Event, event_of
from otelgw_exporters.callbacks.frames import HEAD, pack, unpack
from otelgw_exporters.callbacks.litellm_stub import modules
from otelgw_exporters.callbacks.litellm_stub.custom_logger import CustomLogger
from otelgw_exporters.document import read as read_json

__all__ = ["main"]

_HOOKS = ("log_pre_api_call", "log_post_api_call", "log_stream_event", "log_success_event", "log_failure_event")
_LONGEST = 1500  # characters of a traceback that are passed on: its end, which says most
_GRACE = 2.0  # seconds for an exporter's shutdown and for tasks that are still running
_HERE = str(Path(__file__).parent)

Run = Callable[[Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]


class _Host:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._thread = ThreadPoolExecutor(1, "callback")
        self._exporter: Any = None

    async def serve(self) -> None:
        """Work until the other end is gone, also in the middle of a hook that blocks."""
        reader, writer = await asyncio.open_connection(sock=self._channel)
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        work = asyncio.create_task(self._work(frames, writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
                frames.put_nowait(await reader.readexactly(size))
        work.cancel()
        await self._ended()

    async def _work(self, frames: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
        run: Run | None = None
        try:
            while True:
                frame = unpack(await frames.get())
                answer: dict[str, Any]
                if run is None:
                    run, answer = await self._begun(frame)
                else:
                    answer = {"faults": await run(frame)}
                sys.stdout.flush()
                with contextlib.suppress(ConnectionError):
                    writer.write(pack(answer))
                    await writer.drain()
        except Exception:  # noqa: BLE001 - whatever it is, it is said below
            traceback.print_exc(limit=-5)
            os._exit(70)  # whoever waits for an answer learns at once that there will be none

    async def _begun(self, task: Mapping[str, Any]) -> tuple[Run | None, dict[str, Any]]:
        """Load the callback; return how it is run, and what is said about that."""
        found = source.Source(*task["source"])
        try:
            target = source.loaded(found, task["directory"], task["code"])
            if _is_exporter(target):
                self._exporter = target() if inspect.isclass(target) else target
                return self._export, {"kind": "exporter"}
            logger = target() if inspect.isclass(target) else target
            return self._for(logger, task["model_info"]), {"kind": "logger"}
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
                raise
            return None, {"kind": "", "faults": [self._fault("import", error)]}

    def _for(self, logger: Any, model_info: Mapping[str, Any]) -> Run:
        hooks = {name: _hook(logger, name) for name in _HOOKS}
        plain = logger if callable(logger) and not any(hooks.values()) else None
        if plain is None and not any(hooks.values()) and not isinstance(logger, CustomLogger):
            raise TypeError(f"{type(logger).__name__} is no callback: it has no hook such as log_success_event")

        async def run(frame: Mapping[str, Any]) -> list[dict[str, Any]]:
            payload = read_json(frame["payload"])
            info = model_info.get(payload["model_id"])
            event = event_of(payload, frame["request"], info if isinstance(info, dict) else {})
            return await self._call(hooks, plain, event)

        return run

    async def _call(
        self, hooks: Mapping[str, Callable[..., Any] | None], plain: Callable[..., Any] | None, event: Event
    ) -> list[dict[str, Any]]:
        """Call the hooks of one call in LiteLLM's order; return what went wrong."""
        rest = (event.kwargs, event.response, event.start, event.end)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("log_pre_api_call", (event.model, event.messages, event.kwargs)),
            ("log_post_api_call", (event.kwargs, None, event.start, event.end)),
        ]
        if event.stream and not event.failed:
            calls.append(("log_stream_event", rest))
        calls.append(("log_failure_event" if event.failed else "log_success_event", rest))
        faults = []
        for name, arguments in calls:
            hook = hooks[name]
            if hook is not None:
                faults += await self._try(name, hook, arguments)
        return faults if plain is None else await self._try(getattr(plain, "__name__", "function"), plain, rest)

    async def _try(self, name: str, hook: Callable[..., Any], arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
        try:
            if inspect.iscoroutinefunction(hook):
                await hook(*arguments)
                return []
            made = await asyncio.get_running_loop().run_in_executor(self._thread, _shielded, hook, arguments)
            if inspect.isawaitable(made):
                await made
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            return [self._fault(name, error)]
        return []

    async def _export(self, frame: Mapping[str, Any]) -> list[dict[str, Any]]:
        from opentelemetry.sdk.trace.export import SpanExportResult

        from otelgw_exporters.callbacks.spans import read

        spans = [read(each) for each in frame["spans"]]

        def export() -> Any:
            return self._exporter.export(spans)

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, _shielded, export, ())
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            return [self._fault("export", error)]
        if result is SpanExportResult.SUCCESS:
            return []
        return [
            {"hook": "export", "error": "FAILURE", "where": "", "temporary": True, "memory": False, "traceback": ""}
        ]

    def _fault(self, hook: str, error: BaseException) -> dict[str, Any]:
        """Return what is known of a hook's failure; no value of a secret variable is in it."""
        error = error.caught if isinstance(error, _Raised) else error
        if isinstance(error, MemoryError):
            traceback.clear_frames(error.__traceback__)  # they hold what took the memory
        frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(_HERE)]
        last = frames[-1] if frames else None
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
        lines += traceback.format_exception_only(error)
        masked = _mask()
        return {
            "hook": hook,
            "error": type(error).__name__,
            "where": f"{last.filename.rpartition('/')[2]}:{last.lineno}" if last is not None else "",
            "temporary": isinstance(error, OSError | MemoryError | TimeoutError | asyncio.TimeoutError),
            "memory": isinstance(error, MemoryError),
            "traceback": "\n".join(map(masked, "".join(lines).splitlines()))[-_LONGEST:],
            "message": masked(str(error)),
        }

    async def _ended(self) -> None:
        """Let the callback finish what it has begun, for a moment."""
        with contextlib.suppress(Exception):
            if self._exporter is not None:
                loop = asyncio.get_running_loop()
                await asyncio.wait_for(loop.run_in_executor(self._thread, self._exporter.shutdown), _GRACE)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                await asyncio.wait(left, timeout=_GRACE)


class _Raised(Exception):
    """Carries out of a thread what an executor would not: SystemExit, StopIteration."""

    def __init__(self, caught: BaseException) -> None:
        super().__init__()
        self.caught = caught


def _shielded(hook: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return hook(*arguments)
    except BaseException as error:  # noqa: BLE001 - also sys.exit(): a callback does not end the process by raising
        raise _Raised(error) from None


def _hook(logger: Any, name: str) -> Callable[..., Any] | None:
    """Return the hook that runs: the asynchronous form where there is one, else the plain one; None without either."""
    for form in (f"async_{name}", name):
        found = getattr(logger, form, None)
        inherited = getattr(CustomLogger, form)
        if callable(found) and getattr(type(logger), form, None) is not inherited:
            hook: Callable[..., Any] = found
            return hook
    return None


def _is_exporter(target: Any) -> bool:
    module = sys.modules.get("opentelemetry.sdk.trace.export")
    if module is None:
        return False
    kind = target if inspect.isclass(target) else type(target)
    return issubclass(kind, module.SpanExporter)


def _mask() -> Callable[[str], str]:
    """Return what takes the values of secret variables out of a line."""
    from otelgw_exporters import options
    from otelgw_exporters.http import Masked

    hidden = Masked(options.secret_values())

    def mask(line: str) -> str:
        indent = len(line) - len(line.lstrip(" "))
        return " " * indent + hidden(line)

    return mask


def _limit_memory(size: int) -> None:
    """Bound what the process may take for data, so that a callback that wants more gets a MemoryError."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the other end of the socket is gone."""
    parser = argparse.ArgumentParser(prog="otelgw_exporters.callbacks.host")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the socket is what ends it
    _limit_memory(chosen.memory)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sys.argv[1:] = []
    modules.install()
    asyncio.run(_Host(socket.socket(fileno=chosen.fd)).serve())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that is stuck in a hook does not hold it up
