"""Callbacks in Python, as LiteLLM's configs name them, and any ``SpanExporter`` class: each in a process of its own.

A call whose hook raises is a dead letter, since the code is at fault: once it is mended the letter can be sent again.
What may pass (an ``OSError``, the time limit, the end of the process, the memory limit) is tried ``attempts`` times.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, document, options, payload, semconv
from otelgw_exporters.callbacks import source, store
from otelgw_exporters.callbacks.event import REDACTED
from otelgw_exporters.callbacks.frames import pack
from otelgw_exporters.callbacks.process import Ended, Late, Process
from otelgw_exporters.callbacks.spans import written
from otelgw_exporters.calls import Call, identity, verdicts_of
from otelgw_exporters.delivery import (
    DONE,
    OPERATOR_DELAY,
    UNUSABLE,
    Exporter,
    Outcome,
    Verdict,
    all_retry,
)
from otelgw_exporters.errors import DestinationError, naming
from otelgw_exporters.semconv import profile_of

__all__ = ["CallbackExporter"]

log = logging.getLogger(__name__)

_WARM = 30.0  # seconds for the first start, before anything is to be delivered
_REMEMBERED = 10_000  # calls whose tries are counted, and kinds of faults that have been logged


class CallbackExporter(Exporter):
    """Runs a callback. Keywords are the options of the catalog row ``callback``; what is missing is read from the
    environment. The process starts at once, in the background.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the callback is in a bucket that is not
            allowed.
    """

    def __init__(self, *, name: str = "callback", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("callback"), given)
            self._source = source.parse(chosen["target"])
            source.check_bucket(self._source, chosen["allowed_buckets"])
        super().__init__(name)
        self._limit: float = chosen["timeout"]
        self._attempts: int = chosen["attempts"]
        self._sha256: str = chosen["sha256"] or ""
        self._directory: str = chosen["directory"] or ""
        self._model_info: Mapping[str, Any] = chosen["model_info"] or {}
        self._shape = profile_of(chosen).attributes
        self._process = Process(chosen["memory"], dict(chosen["environment"]) if chosen["environment"] else None)
        self._code: bytes | None = None
        self._is_exporter = False
        self._running = ""  # what the process has been given and not answered yet
        self._since = 0.0
        self._tries: dict[str, int] = {}
        self._logged: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._warm, name=f"start {name}", daemon=True).start()

    def _warm(self) -> None:
        with self._lock:
            problem = None if self._stopped.is_set() else self._ready(time.monotonic() + _WARM)
        if problem is not None and not self._stopped.is_set():
            log.error("destination %s: %s", self.name, problem.reason)

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if not spans:
            return Outcome(())
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return all_retry(len(spans), "the callback is still starting")
        try:
            problem = self._ready(deadline)
            if problem is not None:
                return Outcome((problem,) * len(spans))
            if self._is_exporter:
                return Outcome(tuple(self._exported(spans, deadline)))
            found = [(call, self._logged_call(call, deadline)) for call in payload.calls(spans)]
            return Outcome(verdicts_of(len(spans), found))
        finally:
            self._lock.release()

    def _ready(self, deadline: float) -> Verdict | None:
        """Have the process run; return what became of that if it does not."""
        if self._stopped.is_set():
            return Verdict("retry", "the destination is shut down")
        if self._process.alive:
            return None
        self._running = ""
        shown = self._source.shown
        try:
            if self._source.scheme and self._code is None:
                self._code = source.verified(store.fetch(self._source, deadline), self._sha256, shown)
            told = self._process.start(self._task(), deadline)
        except (DestinationError, OSError) as error:
            return Verdict("retry", str(error), OPERATOR_DELAY)
        if isinstance(told, Late):
            self._process.kill()
            return Verdict("retry", f"{shown} did not load in time")
        if isinstance(told, Ended):
            return Verdict("retry", f"{shown} cannot be loaded: its process {told}", OPERATOR_DELAY)
        if told["kind"]:
            self._is_exporter = told["kind"] == "exporter"
            return None
        self._process.kill()
        (fault,) = told["faults"]
        self._tell(fault)
        at = f" ({fault['where']})" if fault["where"] else ""
        reason = f"{shown} cannot be loaded: {fault['error']}: {fault['message']}{at}; mend it, it is tried again"
        return Verdict("retry", reason, OPERATOR_DELAY)

    def _task(self) -> dict[str, Any]:
        return {
            "source": list(self._source),
            "directory": self._directory,
            "code": self._code,
            "model_info": self._model_info,
        }

    def _logged_call(self, call: Call, deadline: float) -> Verdict:
        try:
            frame = pack({"payload": payload.encoded(call), "request": _request(call)})
        except UNUSABLE as error:
            return Verdict("dead", f"the call cannot be encoded ({type(error).__name__})")
        return self._asked(call.identity, frame, deadline)

    def _exported(self, spans: Sequence[ReadableSpan], deadline: float) -> list[Verdict]:
        """Export; what raises is halved, so that only the span that is stumbled over is given up."""
        try:
            frame = pack({"spans": [written(span, self._shape) for span in spans]})
        except UNUSABLE as error:
            verdict = Verdict("dead", f"the span cannot be encoded ({type(error).__name__})")
        else:
            verdict = self._asked("\n".join(map(identity, spans)), frame, deadline)
        if verdict.state != "dead" or len(spans) == 1:
            return [verdict] * len(spans)
        middle = len(spans) // 2
        return [*self._exported(spans[:middle], deadline), *self._exported(spans[middle:], deadline)]

    def _asked(self, key: str, frame: bytes, deadline: float) -> Verdict:
        """Give the process one thing to do, unless that is what it is doing, and wait for its answer."""
        if time.monotonic() >= deadline:
            return Verdict("retry", "the time for one delivery was over")
        if self._running not in {"", key}:  # nobody waits for that any longer
            self._process.kill()
        problem = self._ready(deadline)
        if problem is not None:
            return problem
        if not self._running:
            self._process.tell(frame, deadline)
            self._running, self._since = key, time.monotonic()
        until = self._since + self._limit
        told = self._process.hear(min(until, deadline))
        if isinstance(told, Late) and time.monotonic() < until:
            return Verdict("retry", "it is still running")
        self._running = ""
        if self._stopped.is_set() and isinstance(told, Late | Ended):
            return Verdict("retry", "the destination is shut down")
        if isinstance(told, Late):
            self._process.kill()
            return self._failed(key, f"took more than {self._limit:g} s and was ended", temporary=True)
        if isinstance(told, Ended):
            return self._failed(key, f"its process {told}", temporary=True)
        return self._judged(key, told["faults"])

    def _judged(self, key: str, faults: Sequence[Mapping[str, Any]]) -> Verdict:
        if not faults:
            self._tries.pop(key, None)
            return DONE
        for fault in faults:
            self._tell(fault)
        if any(fault["memory"] for fault in faults):
            self._process.kill()  # what it holds on to would fail the next call, too
        worst = next((fault for fault in faults if not fault["temporary"]), faults[0])
        at = f" ({worst['where']})" if worst["where"] else ""
        said = "said FAILURE" if worst["error"] == "FAILURE" else f"raised {worst['error']}"
        return self._failed(key, f"{worst['hook']} {said}{at}", temporary=worst["temporary"])

    def _failed(self, key: str, reason: str, *, temporary: bool) -> Verdict:
        """Return the verdict on a call that failed: another try while there are some left."""
        tries = self._tries.pop(key, 0) + 1
        reason = f"{self._source.shown}: {reason}"
        if not temporary or tries >= self._attempts:
            return Verdict("dead", f"{reason}, {tries} times" if tries > 1 else reason)
        self._tries[key] = tries
        if len(self._tries) > _REMEMBERED:
            del self._tries[next(iter(self._tries))]
        return Verdict("retry", reason)

    def _tell(self, fault: Mapping[str, Any]) -> None:
        """Log a fault with its traceback, the first time."""
        kind = (fault["hook"], fault["error"], fault["where"])
        if kind in self._logged or not fault["traceback"]:
            return
        if len(self._logged) < _REMEMBERED:
            self._logged.add(kind)
        log.error(
            "destination %s: %s of %s failed; this is said once\n%s",
            self.name,
            fault["hook"],
            self._source.shown,
            fault["traceback"],
        )

    def shutdown(self) -> None:
        super().shutdown()
        self._process.hang_up()
        with self._lock:
            self._process.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._source.shown}>"


def _request(call: Call) -> dict[str, Any]:
    """Return what is known of the request to the gateway."""
    server: Mapping[str, Any] = (call.server.attributes if call.server is not None else None) or {}
    own: Mapping[str, Any] = call.span.attributes or {}
    address, port = server.get(semconv.SERVER_ADDRESS, ""), server.get(semconv.SERVER_PORT)
    host = f"{address}:{port}" if address and port else str(address)
    headers: dict[str, Any] = {
        "host": host,
        "user-agent": server.get(semconv.USER_AGENT_ORIGINAL),
        "content-length": server.get(semconv.HTTP_REQUEST_BODY_SIZE),
    }
    headers = {name: str(value) for name, value in headers.items() if value}
    prefix = semconv.HTTP_REQUEST_HEADER
    for key, value in server.items():
        if key.startswith(prefix):
            headers[key.removeprefix(prefix)] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    # LiteLLM shows them; what they are worth is not recorded, so there is nothing to show but their names.
    headers |= dict.fromkeys(map(str, server.get(semconv.OTELGW_REQUEST_CREDENTIALS) or ()), REDACTED)
    path = str(server.get(semconv.URL_PATH) or server.get(semconv.HTTP_ROUTE) or "")
    body = document.read(own.get(semconv.OTELGW_REQUEST_BODY))
    return {
        "method": str(server.get(semconv.HTTP_REQUEST_METHOD) or "POST"),
        "url": f"{server.get(semconv.URL_SCHEME, 'http')}://{host}{path}" if host else path,
        "headers": headers,
        "body": body if isinstance(body, dict) else None,
    }
