"""What objects a delivery's spans become: pure functions from spans to keys and bytes.

Every object's name is told by what is in it, so that a delivery that is repeated writes the same objects again: after
a lost acknowledgement, after a restart, from another process.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id

from otelgw_exporters import blob_columns, blob_keys, payload, semconv
from otelgw_exporters.base64_files import stripped
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import UNUSABLE, Verdict
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.otlp_wire import Encoder, assemble, split, to_json

__all__ = ["Blob", "Layout", "Made"]

_OTLP_LINE = 400_000  # bytes of protobuf, which JSON doubles: the Collector's file receivers take lines of 1 MiB
_SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "none": ""}
_KINDS = {"gzip": "application/gzip", "zstd": "application/zstd", "none": "application/x-ndjson"}

Compress = Callable[[bytes], bytes]


class Blob(NamedTuple):
    """One object. ``kind`` is its content type, ``positions`` are the spans that it tells of."""

    key: str
    data: bytes
    kind: str
    positions: tuple[int, ...]


class Made(NamedTuple):
    """What a delivery is to write. The objects of one run are written in order, and none after one that failed: what
    is left is then cut into the same objects the next time. ``verdicts`` are those of spans that are in no object."""

    runs: list[list[Blob]]
    verdicts: dict[int, Verdict]


class _Entry(NamedTuple):
    """One line of an object, which begins with ``directory``."""

    directory: str
    at: int
    line: bytes
    positions: tuple[int, ...]


class Layout:
    """The layout that a destination's resolved options ask for.

    Raises:
        DestinationConfigError: the path cannot be used, or a library is missing.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._form: str = options["layout"]
        self._compression: str = options["compression"]
        self._prefix = blob_keys.prefix_of(options["path"])
        self._team, self._key = options["use_team_prefix"], options["use_key_prefix"]
        self._strip = options["strip_base64_files"]
        self._most = (options["batch_size"], options["batch_bytes"])
        if self._form == "otlp_json" and self._strip:
            raise DestinationConfigError("strip_base64_files: has no effect on otlp_json; leave one of them out")
        self._compress = _compressor(name, self._compression)
        self._encode = Encoder(semconv.profile_of(options).attributes)
        self._columns = blob_columns.Columns(name, self._compression) if self._form == "parquet" else None

    def made(self, spans: Sequence[ReadableSpan]) -> Made:
        """Return the objects that ``spans`` become; never raises for what is in a span."""
        verdicts: dict[int, Verdict] = {}
        if self._form == "per_request":
            return Made([[blob] for blob in self._documents(spans, verdicts)], verdicts)
        entries = self._traces(spans, verdicts) if self._form == "otlp_json" else self._calls(spans, verdicts)
        groups: dict[str, list[_Entry]] = {}
        for entry in entries:
            groups.setdefault(entry.directory, []).append(entry)
        return Made([list(map(self._object, self._cut(group))) for group in groups.values()], verdicts)

    # What is on a line

    def _payloads(
        self, spans: Sequence[ReadableSpan], verdicts: dict[int, Verdict]
    ) -> Iterator[tuple[Call, ReadableSpan, bytes]]:
        """Give every call with the span of the whole request and its payload."""
        for call in payload.calls(spans):
            try:
                data = payload.encoded(call)
                whole = call.server if call.server is not None else call.span
                yield call, whole, stripped(data) if self._strip else data
            except UNUSABLE as error:
                verdicts |= dict.fromkeys(call.positions, _unusable(error))

    def _calls(self, spans: Sequence[ReadableSpan], verdicts: dict[int, Verdict]) -> Iterator[_Entry]:
        for call, whole, data in self._payloads(spans, verdicts):
            at = whole.end_time or whole.start_time or 0
            yield _Entry(self._directory(call.span) + blob_keys.hour(at), at, data, call.positions)

    def _documents(self, spans: Sequence[ReadableSpan], verdicts: dict[int, Verdict]) -> Iterator[Blob]:
        for call, whole, data in self._payloads(spans, verdicts):
            span_id = format_span_id(call.span.context.span_id) if call.span.context else ""
            call_id = str((call.span.attributes or {}).get(semconv.OTELGW_CALL_ID) or call.identity)
            named = blob_keys.per_request(whole.start_time or 0, call_id, span_id)
            yield Blob(self._directory(call.span) + named, data, "application/json", call.positions)

    def _traces(self, spans: Sequence[ReadableSpan], verdicts: dict[int, Verdict]) -> Iterator[_Entry]:
        traces: dict[int, list[int]] = {}
        for position, span in enumerate(spans):
            traces.setdefault(span.context.trace_id if span.context else 0, []).append(position)
        for positions in traces.values():
            members = [spans[position] for position in positions]
            at = max(span.end_time or span.start_time or 0 for span in members)
            about = next((span for span in members if semconv.OTELGW_TEAM_ID in (span.attributes or {})), members[0])
            try:
                lines = [to_json(assemble(run)) for run in split([self._encode(span) for span in members], _OTLP_LINE)]
            except UNUSABLE as error:
                verdicts |= dict.fromkeys(positions, _unusable(error))
                continue
            yield _Entry(self._directory(about) + blob_keys.hour(at), at, b"\n".join(lines), tuple(positions))

    def _directory(self, span: ReadableSpan) -> str:
        attributes = span.attributes or {}
        names = []
        if self._team:
            names.append(attributes.get(semconv.OTELGW_TEAM_ALIAS) or attributes.get(semconv.OTELGW_TEAM_ID))
        if self._key:
            names.append(attributes.get(semconv.OTELGW_KEY_ALIAS))
        return self._prefix + "".join(f"{blob_keys.segment(str(name))}/" for name in names if name)

    # What is in an object

    def _cut(self, entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
        """Give the entries in runs of at most so many and so many bytes; one that is larger is a run of its own."""
        count, size = self._most
        run: list[_Entry] = []
        held = 0
        for entry in entries:
            if run and (len(run) >= count or held + len(entry.line) > size):
                yield run
                run, held = [], 0
            run.append(entry)
            held += len(entry.line) + 1
        if run:
            yield run

    def _object(self, entries: list[_Entry]) -> Blob:
        lines = [entry.line for entry in entries]
        raw = b"\n".join(lines) + b"\n"
        named = f"{entries[0].directory}{min(entry.at for entry in entries)}-{len(entries)}"
        named += f"-{hashlib.sha256(raw).hexdigest()[:16]}"
        positions = tuple(position for entry in entries for position in entry.positions)
        if self._columns is not None:
            data = self._columns.written(lines)
            return Blob(f"{named}.parquet", data, "application/vnd.apache.parquet", positions)
        ending = ".otlp.jsonl" if self._form == "otlp_json" else ".ndjson"
        # No Content-Encoding: clients would unpack what a name ending with .gz promises to be packed.
        kind = _KINDS[self._compression]
        return Blob(named + ending + _SUFFIXES[self._compression], self._compress(raw), kind, positions)


def _unusable(error: Exception) -> Verdict:
    return Verdict("dead", f"the span cannot be encoded ({type(error).__name__})")


def _compressor(name: str, compression: str) -> Compress:
    if compression == "none":
        return bytes
    if compression == "gzip":
        return lambda raw: gzip.compress(raw, compresslevel=6, mtime=0)
    try:
        import zstandard
    except ImportError:
        raise DestinationConfigError(
            f"destination {name}: compression zstd needs zstandard: pip install 'otelgw[storage]'"
        ) from None
    return lambda raw: bytes(zstandard.ZstdCompressor(level=3).compress(raw))
