"""A scripted upstream: a real HTTP/1.1 server on 127.0.0.1 that does what a test says, faults at every stage included.

::

    with ScriptedUpstream([error(429, headers=[(b"Retry-After", b"1")]), error(500), chat("hello")]) as upstream:
        ...                                # upstream.url is http://127.0.0.1:PORT
    async with ScriptedUpstream(reset_after(chat_stream("hello"), 300)) as upstream:
        ...
        await upstream.eventually(lambda: upstream.requests[0].aborted_at)

It runs in a thread of its own, so both forms work from any test, and it never shares the event loop under test.

What it answers is a ``Script``, a list of ``Script`` (one a request, in order; the last one repeats), or a function
``(Received) -> Script``. Without an argument it is ``openai``: a small OpenAI that answers chat, completions,
embeddings, responses and models by what the request asks for. Scripts and their builders are ``tests.servers.scripts``;
they can be imported from here too.

``upstream.requests`` holds what arrived: ``Received`` with raw head, headers, body, the number of its connection, and
``aborted_at``, the ``time.monotonic()`` at which the client left before the answer was complete.
``upstream.connections`` counts accepted connections, ``upstream.open_connections`` those still open.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from otelgw_collector.listening import stop_accepting
from tests.servers.scripts import (
    CREATED,
    USAGE,
    Answers,
    Close,
    Pause,
    Received,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    answer,
    chat,
    chat_body,
    chat_events,
    chat_stream,
    close_after,
    completion,
    early,
    embeddings,
    error,
    head_size,
    on_accept,
    openai,
    payload,
    preceded_by,
    refused_port,
    reset_after,
    responses,
    spaced,
    split_every,
    sse,
    stall_after,
)

__all__ = [
    "CREATED",
    "USAGE",
    "Certificate",
    "Close",
    "Pause",
    "Received",
    "Reset",
    "Script",
    "ScriptedUpstream",
    "Send",
    "Stall",
    "answer",
    "chat",
    "chat_body",
    "chat_events",
    "chat_stream",
    "close_after",
    "completion",
    "early",
    "embeddings",
    "error",
    "head_size",
    "make_certificate",
    "on_accept",
    "openai",
    "payload",
    "preceded_by",
    "refused_port",
    "reset_after",
    "responses",
    "spaced",
    "split_every",
    "sse",
    "stall_after",
]


@dataclass(frozen=True)
class Certificate:
    """PEM files: a CA of our own, and a certificate and key that it vouches for."""

    ca: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context


def make_certificate(directory: Path, *names: str) -> Certificate:
    """Make a certificate for ``names`` (host names and IP addresses; by default localhost and 127.0.0.1)."""
    wanted = names or ("localhost", "127.0.0.1")
    alt = ",".join(f"{'IP' if name.replace('.', '').isdigit() or ':' in name else 'DNS'}:{name}" for name in wanted)
    made = Certificate(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    extensions = directory / "extensions.cnf"
    extensions.write_text(
        f"subjectAltName={alt}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "extendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca_key, request = directory / "ca.key", directory / "server.csr"
    for command in (
        ("req", "-x509", *curve, "-keyout", ca_key, "-out", made.ca, "-days", "2", "-subj", "/CN=scripted CA",
         "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        ("req", *curve, "-keyout", made.key, "-out", request, "-subj", "/CN=scripted upstream"),
        ("x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
         "-extfile", extensions, "-out", made.certificate),
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return made


class ScriptedUpstream:
    """See the module's docstring. ``tls``: a server-side context, ``make_certificate(...).server_context()``."""

    def __init__(self, answers: Answers = openai, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.port = port
        self.tls = tls
        self._answers = answers
        self._served = 0
        self._peers: set[_Peer] = set()
        self._thread = threading.Thread(target=self._run, name="scripted-upstream", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._failures: list[Exception] = []
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https://localhost:PORT with TLS."""
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._peers)

    def answer_with(self, answers: Answers) -> None:
        """Replace the script; a list starts from its first."""
        self._answers, self._served = answers, 0

    def wait_until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Block until ``condition()`` is true; from async code use ``eventually``."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.002)

    async def eventually(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait until ``condition()`` is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            await asyncio.sleep(0.002)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Peer(self), "127.0.0.1", self.port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await stop_accepting(*(listener.fileno() for listener in server.sockets))
        server.close()
        async with asyncio.timeout(5):
            while self._peers:
                peers = list(self._peers)
                for peer in peers:
                    peer.end()
                await asyncio.gather(*(peer.task for peer in peers), return_exceptions=True)
                await asyncio.sleep(0)  # connection_lost
        if self._failures:
            raise self._failures[0]

    def next_script(self, received: Received | None) -> Script | None:
        """Return the script for a request, or for a new connection (None) if the next one is meant for that."""
        answers = self._answers
        if callable(answers):
            return None if received is None else answers(received)
        scripts = [answers] if isinstance(answers, Script) else answers
        script = scripts[min(self._served, len(scripts) - 1)]
        if (received is None) != (script.when == "accept"):
            return None
        self._served += 1
        return script


class _Peer(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self._gone_at: float | None = None
        self._blocked = False
        self.task: asyncio.Task[None]
        self._transport: asyncio.Transport
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._upstream.connections += 1
        self._number = self._upstream.connections
        self._upstream._peers.add(self)
        self.task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._changed.set()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._upstream._peers.discard(self)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._changed.set()

    def end(self) -> None:
        self.task.cancel()
        self._transport.abort()

    def _leave(self) -> None:
        if self._gone_at is None:
            self._gone_at = time.monotonic()
        self._changed.set()

    async def _until(self, condition: Callable[[], Any]) -> bool:
        """Wait for ``condition``; False if the client left first."""
        while not condition():
            if self._gone_at is not None:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _run(self) -> None:
        try:
            script = self._upstream.next_script(None)
            if script is not None:
                await self._play(script, None)
                return
            while await self._answer_one():
                pass
        except Exception as failure:
            self._upstream._failures.append(failure)
        finally:
            self._transport.abort()

    async def _answer_one(self) -> bool:
        """Serve one request; False when the connection is over."""
        if not await self._until(lambda: b"\r\n\r\n" in self._buffer):
            return False
        received = self._read_head()
        self._upstream.requests.append(received)
        answers = self._upstream._answers
        script = None
        if not callable(answers):
            script = self._upstream.next_script(received) or Script((Close(),))
        if script is None or script.when == "request":
            if not await self._read_body(received):
                received.aborted_at = self._gone_at
                return False
            script = script or self._upstream.next_script(received) or Script((Close(),))
        return await self._play(script, received) and (received.complete or await self._read_body(received))

    def _read_head(self) -> Received:
        raw, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        first, *lines = raw.split(b"\r\n")
        method, target, _ = first.decode("latin-1").split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        return Received(method, target, headers, raw + b"\r\n\r\n", self._number, time.monotonic())

    async def _read_body(self, received: Received) -> bool:
        buffer = self._buffer
        if received.header("transfer-encoding") == "chunked":
            while True:
                if not await self._until(lambda: b"\r\n" in buffer):
                    return False
                line, _, _ = bytes(buffer).partition(b"\r\n")
                size, start = int(line, 16), len(line) + 2
                if not await self._until(lambda size=size, start=start: len(buffer) >= start + size + 2):  # type: ignore[misc]
                    return False
                received.body += bytes(buffer[start : start + size])
                del buffer[: start + size + 2]
                if size == 0:
                    break
        else:
            length = int(received.header("content-length") or 0)
            if not await self._until(lambda: len(buffer) >= length):
                received.body = bytes(buffer)
                return False
            received.body = bytes(buffer[:length])
            del buffer[:length]
        received.complete = True
        return True

    async def _play(self, script: Script, received: Received | None) -> bool:
        """Do the steps; False when the connection is over."""
        for step in script.steps:
            if self._gone_at is not None or not await self._do(step):
                over = isinstance(step, Close | Reset)
                break
        else:
            over = True
        if received is not None:
            received.answered_at = time.monotonic() if over else None
            received.aborted_at = None if over else self._gone_at
        return received is not None and self._gone_at is None and not isinstance(script.steps[-1], Close | Reset)

    async def _do(self, step: Step) -> bool:
        """Do one step; False when nothing may follow."""
        if isinstance(step, Send):
            self._transport.write(step.data)
            return await self._until(lambda: not self._blocked)
        if isinstance(step, Pause):
            deadline = asyncio.get_running_loop().time() + step.seconds
            try:
                async with asyncio.timeout_at(deadline):
                    await self._until(lambda: False)
            except TimeoutError:
                return True
            return False
        if isinstance(step, Stall):
            await self._until(lambda: False)
            return False
        if isinstance(step, Reset):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
            return False
        self._transport.close()
        await self._until(lambda: False)
        return False
