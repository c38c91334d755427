"""A vendor's server on loopback, as a stand-in describes it, that answers what a test says or does not answer at all.

HTTP is served by ``HttpVendor``, gRPC by ``GrpcVendor``; a connection that breaks really breaks, with a TCP reset.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.exporters.stand_ins import Answer, Request, StandIn
from tests.servers.answering import AnyMethod

__all__ = ["Arrived", "Fault", "Vendor", "serve"]

_AT_ONCE = struct.pack("ii", 1, 0)  # a connection that is closed so is reset
_PATIENCE = 60.0  # seconds for which a silent server says nothing, at most


class Fault(Enum):
    """What a server does instead of answering."""

    SILENCE = "no answer"
    RESET_BEFORE = "the connection is reset before the answer"
    RESET_AMID = "the connection is reset in the middle of the answer"


class Arrived(NamedTuple):
    """A request that carried items. ``wire`` is its body as it was sent, with its content encoding."""

    request: Request
    wire: bytes
    items: list[str]


Script = Callable[[Request], Answer | Fault]


class Vendor:
    """What both servers share. ``script`` answers the requests that carry items."""

    origin: str

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.script: Script = stand_in.accepted
        self.arrived: list[Arrived] = []
        self.requests: list[Request] = []
        self.asked = threading.Event()  # set when a request with items has come
        self.released = threading.Event()
        self._lock = threading.Lock()

    def answers(self, script: Script | Answer | Fault) -> None:
        """From now on, answer like this."""
        self.script = script if callable(script) else lambda _: script

    def accepts(self) -> None:
        """From now on, take everything."""
        self.script = self.stand_in.accepted

    def items(self) -> list[str]:
        """Return the ids of everything that arrived, in its order."""
        with self._lock:
            return [item for arrived in self.arrived for item in arrived.items]

    def forget(self) -> None:
        with self._lock:
            self.arrived.clear()
        self.asked.clear()

    def answer(self, request: Request, wire: bytes) -> Answer | Fault:
        """Note a request, and return what becomes of it."""
        with self._lock:
            self.requests.append(request)
            items = self.stand_in.items(request)
            if not items:
                return self.stand_in.accepted(request)
            self.arrived.append(Arrived(request, wire, items))
            script = self.script
        self.asked.set()
        return script(request)

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


def serve(stand_in: StandIn) -> Vendor:
    """Return the server of a stand-in, to be entered."""
    return GrpcVendor(stand_in) if stand_in.transport == "grpc" else HttpVendor(stand_in)


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that has gone, or that the server itself has broken, is none of the test's output."""


class _Handler(AnyMethod):
    """Answers with what its vendor says."""

    vendor: HttpVendor

    def respond(self) -> None:
        wire = b"".join(self._chunks())
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = _decoded(wire, headers.get("content-encoding", ""))
        answer = self.vendor.answer(Request(self.command, self.path, headers, body), wire)
        if isinstance(answer, Fault):
            self._fail(answer)
        else:
            self._send(answer)

    def _chunks(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            yield self.rfile.read(int(self.headers.get("content-length") or 0))
            return
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _fail(self, fault: Fault) -> None:
        self.close_connection = True
        if fault is Fault.SILENCE:
            self.vendor.released.wait(_PATIENCE)
        elif fault is Fault.RESET_AMID:
            self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning")
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        # The two files keep the connection open for as long as they are.
        for each in (self.rfile, self.wfile, self.connection):
            each.close()

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        bodiless = answer.status in {204, 304} or self.command == "HEAD"
        length = {} if bodiless else {"content-length": str(len(answer.body))}
        for name, value in {**length, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not bodiless:
            self.wfile.write(answer.body)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


class HttpVendor(Vendor):
    """HTTP/1.1, any method."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in)
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"vendor": self}))
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# As google/rpc/code.proto pairs them with HTTP.
_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(status: int) -> grpc.StatusCode:
    """Return the gRPC status that stands for an HTTP status."""
    return _CODES[status]


class GrpcVendor(Vendor, grpc.GenericRpcHandler):  # type: ignore[misc]
    """Any unary gRPC method, behind a relay that can break the connections."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((self,))
        self._relay = _Relay(self._server.add_insecure_port("127.0.0.1:0"))
        self.origin = f"http://127.0.0.1:{self._relay.port}"

    def service(self, call: Any) -> Any:
        def unary(body: bytes, context: Any) -> bytes:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            answer = self.answer(Request("POST", call.method, metadata, body), body)
            return self._fail(answer, context) if isinstance(answer, Fault) else self._send(answer, context)

        return grpc.unary_unary_rpc_method_handler(unary)

    def _fail(self, fault: Fault, context: Any) -> bytes:
        if fault is Fault.SILENCE:
            self.released.wait(_PATIENCE)
        elif fault is Fault.RESET_BEFORE:
            self._relay.reset()
        else:
            self._relay.reset_after_next()
            context.send_initial_metadata(())
            self._relay.was_reset.wait(5)
        return b""

    def _send(self, answer: Answer, context: Any) -> bytes:
        if 200 <= answer.status < 300:
            return answer.body
        code, text = code_of(answer.status), answer.body.decode()
        if after := answer.headers.get("retry-after"):
            context.set_trailing_metadata((("grpc-status-details-bin", _retry_info(code, float(after))),))
        context.abort(code, text)
        raise AssertionError

    def __enter__(self) -> Self:
        self._server.start()
        self._relay.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._relay.stop()
        self._server.stop(None).wait()


def _retry_info(code: grpc.StatusCode, seconds: float) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(code=code.value[0], details=[detail]).SerializeToString()


class _Relay:
    """Passes bytes between TCP connections to ``port`` of its own and to another one."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.was_reset = threading.Event()
        self._cut_next = False
        self._stopped = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
                stopped = self._stopped
            if stopped:  # what stop() has closed was without this one
                self.reset()
                return
            threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, backwards: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if backwards and self._cut_next:
                    self.reset()
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def reset_after_next(self) -> None:
        """Break the connections once some more of an answer has gone to the client."""
        self.was_reset.clear()
        self._cut_next = True

    def reset(self) -> None:
        """Break the connections that are open."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._cut_next = False
        for near, far in pairs:
            with contextlib.suppress(OSError):
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            for sock in (near, far):
                # A thread that waits in recv() keeps a closed socket alive; after a shutdown it does not.
                _wake(sock)
        self.was_reset.set()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._stopped = True
        self.reset()


def _wake(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    sock.close()
