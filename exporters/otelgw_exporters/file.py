"""JSON lines in files: one StandardLoggingPayload a call, or one OTLP request a trace.

The OTLP lines are those of OpenTelemetry's file exporter: the Collector's ``otlpjsonfile`` receiver reads them. A
delivery is done when its lines are with the operating system, which a kill -9 does not change; with ``fsync`` when they
are on the disk, which a power cut does not change either.
"""

from __future__ import annotations

import errno
import os
import re
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, options, payload
from otelgw_exporters.delivery import DONE, OPERATOR_DELAY, UNUSABLE, Exporter, Outcome, Verdict, all_retry
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.lines import Appender
from otelgw_exporters.otlp_wire import Encoder, assemble, split, to_json
from otelgw_exporters.semconv import profile_of

__all__ = ["FileExporter"]

_SECOND = 1_000_000_000
_LINE = 400_000  # bytes of protobuf, which JSON doubles: the Collector's file receivers take lines of 1 MiB
_FIELDS = ("date", "hour", "pid", "service")
_UNSAFE = re.compile(r"[^\w.-]")
_LONGEST = 100  # characters of a service's name in a path
_OPERATOR = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    }
)


Encode = Callable[[], bytes]


class _Line(NamedTuple):
    """One line, and the positions of the spans that it tells of."""

    data: bytes
    positions: tuple[int, ...]


class FileExporter(Exporter):
    """Appends to files. Keywords are the options of the catalog row ``file``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "file", **given: Any) -> None:
        with naming(name):
            chosen = options.resolve(catalog.row("file"), given)
            self._path = _checked(chosen["path"])
        super().__init__(name)
        self._otlp = chosen["format"] == "otlp"
        self._encode = Encoder(profile_of(chosen).attributes)
        self._appender = Appender(
            max_bytes=chosen["max_bytes"],
            max_files=chosen["max_files"],
            fsync=chosen["fsync"],
            beginning=b'{"resourceSpans":' if self._otlp else b'{"id":',
        )
        self._writing = threading.Lock()

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        verdicts = [DONE] * len(spans)
        by_path: dict[str, list[_Line]] = {}
        for encode, first, positions in (self._traces if self._otlp else self._payloads)(spans):
            try:
                line = _Line(encode() + b"\n", positions)
                by_path.setdefault(self._path_of(first), []).append(line)
            except UNUSABLE as error:
                _set(verdicts, positions, Verdict("dead", f"the span cannot be encoded ({type(error).__name__})"))
        for path, lines in by_path.items():
            done, failed = self._append(path, lines, deadline)
            if failed is not None:
                for line in lines[done:]:
                    _set(verdicts, line.positions, failed)
        return Outcome(tuple(verdicts))

    def _append(self, path: str, lines: Sequence[_Line], deadline: float) -> tuple[int, Verdict | None]:
        """Return how many lines are written, and what becomes of the others."""
        done = 0
        try:
            with self._writing:
                for done in self._appender.append(path, [line.data for line in lines], deadline):  # noqa: B007
                    pass
        except OSError as error:
            reason = f"{path}: {error.strerror or type(error).__name__}"
            if error.errno in _OPERATOR:
                return done, Verdict("retry", f"{reason} (mend the destination's path or its rights)", OPERATOR_DELAY)
            return done, Verdict("retry", reason)
        return done, None

    def _payloads(self, spans: Sequence[ReadableSpan]) -> Iterator[tuple[Encode, ReadableSpan, tuple[int, ...]]]:
        for call in payload.calls(spans):
            yield partial(payload.encoded, call), call.span, call.positions

    def _traces(self, spans: Sequence[ReadableSpan]) -> Iterator[tuple[Encode, ReadableSpan, tuple[int, ...]]]:
        traces: dict[int, list[int]] = {}
        for position, span in enumerate(spans):
            traces.setdefault(span.context.trace_id if span.context else 0, []).append(position)
        for positions in traces.values():
            members = [spans[position] for position in positions]
            yield partial(self._otlp_lines, members), members[0], tuple(positions)

    def _otlp_lines(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Return the spans of a trace as one line; as several where one would be longer than readers take."""
        runs = split([self._encode(span) for span in spans], _LINE)
        return b"\n".join(to_json(assemble(run)) for run in runs)

    def _path_of(self, span: ReadableSpan) -> str:
        """Return the path for what ``span`` began: the same on every try."""
        if "{" not in self._path:
            return self._path
        at = datetime.fromtimestamp((span.start_time or 0) / _SECOND, UTC)
        attributes: Mapping[str, Any] = span.resource.attributes if span.resource else {}
        service = _UNSAFE.sub("_", str(attributes.get("service.name") or "unknown"))[:_LONGEST].lstrip(".") or "unknown"
        return self._path.format(date=f"{at:%Y-%m-%d}", hour=f"{at:%H}", pid=os.getpid(), service=service)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._path}>"


def _set(verdicts: list[Verdict], positions: Sequence[int], verdict: Verdict) -> None:
    for position in positions:
        verdicts[position] = verdict


def _checked(path: str) -> str:
    """Return a path template whose fields are all known.

    Raises:
        DestinationConfigError: a field is not known, or a brace stands alone.
    """
    try:
        fields = [field for _, field, form, conversion in string.Formatter().parse(path) if field is not None]
        plain = not any(form or conversion for _, _, form, conversion in string.Formatter().parse(path))
    except ValueError:
        fields, plain = [""], False
    if not plain or not set(fields) <= set(_FIELDS):
        known = ", ".join(f"{{{field}}}" for field in _FIELDS)
        raise DestinationConfigError(f"file: path: {path!r}: known fields are {known}; a brace itself is written twice")
    return path
