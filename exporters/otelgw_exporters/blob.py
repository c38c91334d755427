"""The one writer of object stores: S3, Google Cloud Storage, Azure Blob Storage, by obstore (extra ``storage``).

obstore cannot be used in a child of a process that has used it, so stores are built when the first object is written,
and a child forked after that is refused with the reason. It reads environment variables of its own accord; stores are
therefore always given their credentials by a provider.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.batches import Batches
from otelgw_exporters.blob_layouts import Blob, Layout, Made
from otelgw_exporters.codes import explained
from otelgw_exporters.delivery import DONE, OPERATOR_DELAY, Exporter, Outcome, Reply, Verdict, all_retry
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["RETRY", "BlobExporter", "Provider", "Store", "Writer", "classify", "client_options", "obstore_of"]

T = TypeVar("T")

_AT_ONCE = 8  # objects in flight
_ACCEPTED = Reply("accepted")
_SHUT_DOWN = Reply("again", "the destination is shut down")
_LATE = Reply("again", "no answer in time")
_CONNECT = "5s"
RETRY: Any = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2.0},
}
"""obstore's own retry: one, at once. Every further one is the pipeline's."""
_STATUS = re.compile(r"(?:status code|Server returned[^:]*): (\d{3})")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>|<Details>([^<]*)</Details>")
_CAUSE = re.compile(r'message: "((?:[^"\\]|\\.)*)"|error: "((?:[^"\\]|\\.)*)"|kind: (Timeout|Connect|Request|Decode)\b')
_RAISED = re.compile(r"^No(?:Token|Credentials): ")  # the name of what a provider raises
_PATIENCE = frozenset({408, 425, 429, *range(500, 600)})
_BY_KIND = {"PermissionDeniedError": 403, "UnauthenticatedError": 401}

_used_by = 0  # the process that has used obstore


class Store(NamedTuple):
    """One bucket. ``build`` makes obstore's store, ``shown`` names it in messages.

    ``hints`` say by error code what to mend, ``tokens`` what where obstore itself is given no token; ``throttled`` are
    the codes that ask for patience whatever their status; ``mask`` hides secrets.
    """

    shown: str
    build: Callable[[], Any]
    hints: Mapping[str, str]
    mask: Callable[[str], str]
    throttled: frozenset[str] = frozenset({"SlowDown", "ServerBusy", "OperationTimedOut"})
    tokens: str = "mend the destination's credentials"


class Provider:
    """Gives obstore credentials: ``give`` returns a dictionary of one of the kinds that it knows."""

    refresh_threshold = timedelta(minutes=5)  # before they expire they are asked for again

    def __init__(self, give: Callable[[], dict[str, Any]]) -> None:
        self._give = give

    def __call__(self) -> Any:
        return self._give()


def obstore_of(name: str) -> Any:
    """Return the module obstore.

    Raises:
        DestinationConfigError: it is not installed.
    """
    try:
        import obstore
    except ImportError:
        raise DestinationConfigError(
            f"destination {name}: object stores need obstore: pip install 'otelgw[storage]'"
        ) from None
    return obstore


def client_options(url: str, *, certificate: str = "", verify: bool = True) -> dict[str, Any]:
    """Return obstore's options for HTTP: plain text only where ``url`` says so, ``certificate`` is a PEM file.

    Raises:
        DestinationConfigError: the file cannot be read.
    """
    chosen: dict[str, Any] = {"connect_timeout": _CONNECT, "timeout": "600s", "allow_http": url.startswith("http://")}
    if certificate:
        try:
            with open(certificate, "rb") as file:  # noqa: PTH123 - a path as the config has it
                chosen["root_certificate"] = file.read()
        except OSError as error:
            raise DestinationConfigError(f"certificate: {certificate}: {error.strerror}") from None
    if not verify:
        chosen["allow_invalid_certificates"] = True
    return chosen


class Writer:
    """Writes objects of one store; from any thread, each call for itself."""

    def __init__(self, name: str, store: Store) -> None:
        self._obstore = obstore_of(name)
        self.store = store
        self._built: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = 0
        self._lock = threading.Lock()
        self._closed = False

    def write(self, runs: Sequence[Sequence[Blob]], deadline: float) -> list[list[Reply]]:
        """Write the objects of each run in order; return a reply for each object. Blocks until ``deadline`` at the
        latest, on ``time.monotonic``. After an object that has to be tried again no other is begun.
        """
        refusal = self._refusal(deadline)
        if refusal is not None:
            return [[refusal] * len(run) for run in runs]
        try:
            return self._run(self._all(runs, deadline))
        except (CancelledError, RuntimeError):  # the loop was stopped by close
            return [[_SHUT_DOWN] * len(run) for run in runs]

    def put(self, blob: Blob, deadline: float) -> Reply:
        """Write one object."""
        return self.write([[blob]], deadline)[0][0]

    def read(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        refusal = self._refusal(time.monotonic() + 1)
        if refusal is not None:
            raise OSError(refusal.reason)

        async def get() -> bytes:
            found = await self._obstore.get_async(self._built, key)
            return bytes(await found.bytes_async())

        return self._run(get())

    @property
    def errors(self) -> type[Exception]:
        """The base of the library's own errors."""
        base: type[Exception] = self._obstore.exceptions.BaseError
        return base

    def close(self) -> None:
        """End what is under way."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None and self._owner == os.getpid():
            loop.call_soon_threadsafe(_cancel_all, loop)

    def _refusal(self, deadline: float) -> Reply | None:
        """Build what is needed; return why nothing can be written."""
        global _used_by  # noqa: PLW0603 - obstore's state is the process's, so is this
        if self._closed:
            return _SHUT_DOWN
        if deadline <= time.monotonic():
            return _LATE
        with self._lock:
            if _used_by not in {0, os.getpid()}:
                return Reply(
                    "again",
                    f"{self.store.shown}: obstore was used before this process was forked and cannot be used in it: "
                    "mend the application, to start processes with `spawn` or to export only after the fork",
                    OPERATOR_DELAY,
                )
            _used_by = os.getpid()
            try:
                if self._built is None:
                    self._built = self.store.build()
            except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
                said = self.store.mask(str(error).partition("\n")[0])
                return Reply("again", f"{self.store.shown}: {said} (mend the destination's options)", OPERATOR_DELAY)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._owner = os.getpid()
                threading.Thread(target=_serve, args=(self._loop,), name="otelgw object store", daemon=True).start()
        return None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            loop = self._loop
        if loop is None:
            work.close()
            raise RuntimeError("closed")
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def _all(self, runs: Sequence[Sequence[Blob]], deadline: float) -> list[list[Reply]]:
        free = asyncio.Semaphore(_AT_ONCE)
        stopped: list[Reply] = []

        async def one(run: Sequence[Blob]) -> list[Reply]:
            replies: list[Reply] = []
            for blob in run:
                async with free:
                    reply = stopped[0] if stopped else await self._put(blob, deadline)
                replies.append(reply)
                if reply.kind == "again":
                    stopped.append(reply)
            return replies

        return await asyncio.gather(*map(one, runs))

    async def _put(self, blob: Blob, deadline: float) -> Reply:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._obstore.put_async(
                    self._built,
                    blob.key,
                    blob.data,
                    attributes={"Content-Type": blob.kind},
                    mode="overwrite",
                    use_multipart=False,
                )
        except TimeoutError:
            return Reply("again", f"{self.store.shown}: no answer in time")
        except (self._obstore.exceptions.BaseError, OSError, ValueError, RuntimeError) as error:
            return classify(error, self.store)
        except asyncio.CancelledError:
            if self._closed:
                return _SHUT_DOWN
            raise
        return _ACCEPTED


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # A put that is cancelled may still call back from obstore's own threads.
    loop.call_later(0.2, loop.stop)


def classify(error: Exception, store: Store) -> Reply:
    """Return what obstore's ``error`` means. Its text is the only place where status and code are."""
    text = str(error).partition("\n\nDebug source")[0]
    status = next((int(found[1]) for found in [_STATUS.search(text)] if found), 0)
    code = next((found[1] for found in [_CODE.search(text)] if found), "")
    if "token request" in text:
        said = store.mask(text.partition("token request: ")[2])
        return Reply("again", f"{store.shown}: no token: {said} ({store.tokens})", OPERATOR_DELAY)
    if not status and not code:
        return _without_answer(error, text, store)
    told = _MESSAGE.search(text)
    message = (told[1] or told[2] or "") if told else ""
    reason = f"{store.shown}: HTTP {status} {code}: {store.mask(message)}".rstrip(": ")
    if code not in store.hints and (status in _PATIENCE or code in store.throttled):
        return Reply("again", reason)
    return explained(code, reason, status or _BY_KIND.get(type(error).__name__, 0), store.hints)


def _without_answer(error: Exception, text: str, store: Store) -> Reply:
    """Return the reply to a failure before any answer: the credentials, or the connection."""
    if type(error).__name__ in _BY_KIND:
        said = store.mask(_RAISED.sub("", text.partition(": ")[2]))
        mend = "" if "mend" in said else " (mend the destination's credentials)"
        return Reply("again", f"{store.shown}: {said}{mend}", OPERATOR_DELAY)
    if "redirect" in text:  # which a client of S3 is not meant to follow: the signature is another region's
        return explained("", f"{store.shown}: HTTP 301", 301, store.hints)
    causes = [next(filter(None, found)) for found in _CAUSE.findall(str(error))]
    said = store.mask(", ".join(dict.fromkeys(causes)) or text.rpartition(": ")[2])
    return Reply("again", f"{store.shown}: the store cannot be reached: {said}")


class BlobExporter(Exporter):
    """Base of the destinations that write objects. ``options`` are the resolved ones of the row."""

    def __init__(self, name: str, options: Mapping[str, Any], store: Store) -> None:
        super().__init__(name, options["timeout"])
        self._layout = Layout(name, options)
        self._writer = Writer(name, store)
        self.batching = Batches(options["batch_size"], options["batch_bytes"], _linger(options))

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        made = self._layout.made(spans)
        replies = self._writer.write(made.runs, deadline) if made.runs else []
        return _outcome(made, replies, len(spans))

    @property
    def store(self) -> Store:
        """The bucket."""
        return self._writer.store

    def read(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read; so do the library's own errors.
        """
        return self._writer.read(key)

    def read_back(self, spans: Sequence[ReadableSpan], deadline: float) -> str:
        """Return nothing if the objects of ``spans`` are there as they were written; else what is wrong.

        The credentials must allow reading. ``deadline`` is on ``time.monotonic``.
        """
        for blob in (blob for run in self._layout.made(spans).runs for blob in run):
            if time.monotonic() >= deadline:
                return "no answer in time"
            try:
                there = self.read(blob.key)
            except FileNotFoundError:
                return f"{blob.key} is not there"
            except (OSError, ValueError, RuntimeError, self._writer.errors) as error:
                return classify(error, self._writer.store).reason
            if there != blob.data:
                return f"{blob.key} holds something else"
        return ""

    def shutdown(self) -> None:
        super().shutdown()
        self._writer.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._writer.store.shown}>"


def _linger(options: Mapping[str, Any]) -> float:
    """Return the seconds to collect: where every call is an object of its own there is nothing to wait for."""
    given: float = options["flush_interval"]
    return min(given, 1.0) if options["layout"] == "per_request" else given


def _outcome(made: Made, replies: Sequence[Sequence[Reply]], count: int) -> Outcome:
    verdicts = [made.verdicts.get(position, DONE) for position in range(count)]
    for run, answers in zip(made.runs, replies, strict=True):
        for blob, reply in zip(run, answers, strict=True):
            verdict = _VERDICTS[reply.kind](reply)
            for position in blob.positions:
                verdicts[position] = verdict
    return Outcome(tuple(verdicts))


_VERDICTS: Mapping[str, Callable[[Reply], Verdict]] = {
    "accepted": lambda _: DONE,
    "again": lambda reply: Verdict("retry", reply.reason, reply.after),
    "too_large": lambda reply: Verdict("dead", reply.reason),
    "refused": lambda reply: Verdict("dead", reply.reason),
}
