"""``otelgw spool``: what the spool holds, what could not be delivered, and sending it again.

Nothing here writes to the pipeline's database. What is to be sent again is put into the spool as records addressed to
one destination, in a segment of its own; a running pipeline takes it up at once, another one when it starts.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from otelgw.config.settings import Settings
from otelgw.errors import ConfigError, StartError
from otelgw.report import read_state
from otelgw.tracing import record as records
from otelgw_collector import letters, otlp_spans
from otelgw_collector.address import Address, encode
from otelgw_collector.aside import NEWER
from otelgw_collector.segment_format import ADDRESSED, OTLP, RECORD, Entry
from otelgw_collector.segments import SegmentReader, SegmentWriter, find_segments

__all__ = ["Request", "run"]

_STALE = 10.0  # seconds without a word after which a pipeline is taken not to run
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NANO = 1_000_000_000
_MOST = 1000  # dead letters in one list
_AT_ONCE = 100  # dead letters in memory, each with its record


class Request(NamedTuple):
    """What the command line asked for; ``show`` is a dead letter's number."""

    action: str = "status"
    show: int | None = None
    redrive: bool = False
    since: str = ""
    until: str = ""
    destination: str = ""


def run(settings: Settings, request: Request) -> Iterator[str]:
    """Do what is asked for and yield the lines to print.

    Raises:
        ConfigError: it is asked for in a way that cannot be followed.
        StartError: it cannot be done; says why and what would help.
    """
    state = Path(settings.state_dir)
    if request.action == "replay":
        return _replay(settings, state, request)
    if request.action == "dead-letters":
        return _dead_letters(state, request)
    return _status(state)


def _status(state: Path) -> Iterator[str]:
    said = read_state(str(state))
    yield f"state         {state}"
    if said is None:
        yield "pipeline      has not run here yet"
        return
    silent = time.time() - said["at"]
    running = "running" if silent < _STALE else f"not running, last heard of {silent:.0f} s ago"
    yield f"pipeline      {running} (pid {said['pid']})"
    yield f"spool         {_size(said['spool']['bytes'])} of {_size(said['spool']['cap'])}"
    yield f"set aside     {said['undecodable']} undecodable, {said['quarantined']} quarantined"
    yield from _for_a_newer_one(state / "spool")
    for each in said["destinations"]:
        yield ""
        yield f"{each['name']}: {each['state']}" + (f" ({each['error']})" if each["error"] else "")
        yield (
            f"  waiting     {_size(each['backlog_bytes'])}, {each['queued']} records in memory, "
            f"the oldest {each['oldest_seconds']:.0f} s old"
        )
        yield (
            f"  spans       {each['delivered']} delivered, {each['retried']} retried, {each['dead']} dead, "
            f"{each['rejected']} rejected by the destination"
        )
        yield f"  records     {each['dropped']} dropped because the spool was full, {each['withheld']} withheld"
        yield f"  letters     {_spans(each['dead_letters'])} kept; `otelgw spool dead-letters` lists them"


def _for_a_newer_one(spool: Path) -> Iterator[str]:
    """Say what waits for a newer otelgw to read it; nothing if nothing does."""
    records = [path.stat().st_size for path in (spool / "undecodable" / NEWER).glob("*.record")]
    segments = [name.path.stat().st_size for name in find_segments(spool) if _is_newer(name.path)]
    if records or segments:
        total = _size(sum(records) + sum(segments))
        yield f"              {len(records)} records and {len(segments)} segments of a newer otelgw, {total}"


def _is_newer(path: Path) -> bool:
    try:
        reader = SegmentReader(path)
    except OSError:
        return False
    reader.close()
    return not reader.supported


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _dead_letters(state: Path, request: Request) -> Iterator[str]:
    try:
        database = letters.read_only(state / "pipeline.db")
    except sqlite3.OperationalError:
        raise StartError(f"{state}: there is no pipeline.db that can be read; has the gateway run here?") from None
    try:
        most = -1 if request.redrive or request.show is not None else _MOST
        found = letters.listing(database, destination=request.destination, most=most)
        if request.show is not None:
            found = [letter for letter in found if letter.id == request.show]
            if not found:
                raise StartError(f"There is no dead letter {request.show}; `otelgw spool dead-letters` lists them.")
        if request.redrive:
            yield from _redrive(state, database, found)
        elif request.show is not None:
            yield from _show(letters.find(database, [request.show])[0])
        else:
            yield from _list(found)
    except sqlite3.Error as error:
        raise StartError(f"{state}/pipeline.db cannot be read: {error}") from None
    finally:
        database.close()


def _list(found: list[letters.Stored]) -> Iterator[str]:
    if not found:
        yield "There are no dead letters."
    for each in found:
        yield f"{each.id}  {_time(each.at)}  {each.destination}  {each.trace_id}  {each.name}: {each.reason}"
    if found:
        yield f"{_spans(len(found))}, of {_traces(found)}"


def _spans(count: int) -> str:
    return "1 span" if count == 1 else f"{count} spans"


def _traces(found: list[letters.Stored]) -> str:
    """Say how many traces the letters are of: where a whole call died, each of its spans has a letter."""
    count = len({letter.trace_id for letter in found})
    return "1 trace" if count == 1 else f"{count} traces"


def _show(letter: letters.Letter) -> Iterator[str]:
    yield f"destination  {letter.key.destination}"
    yield f"trace id     {letter.key.trace_id}"
    yield f"span id      {letter.key.span_id}"
    yield f"span         {letter.name}"
    yield f"died         {_time(letter.at)}"
    yield f"reason       {letter.reason}"
    yield f"record       {letter.place}, {len(letter.payload)} bytes" + ("" if letter.payload else " (gone)")


def _redrive(state: Path, database: sqlite3.Connection, found: list[letters.Stored]) -> Iterator[str]:
    lost = 0
    ids = [letter.id for letter in found]

    def addressed() -> Iterator[Address]:
        nonlocal lost
        for at in range(0, len(ids), _AT_ONCE):
            for letter in letters.find(database, ids[at : at + _AT_ONCE]):
                lost += not letter.payload
                if letter.payload:
                    key = letter.key
                    span = frozenset({f"{key.trace_id}-{key.span_id}"})
                    yield Address(key.destination, letter.payload, letter.kind, span, letters=True)

    _write(state, "redrive", addressed())
    yield f"On their way again: {_spans(len(ids) - lost)}, of {_traces(found)} with dead letters."
    if lost:
        yield f"Lost: {_spans(lost)}, because the records are gone."


def _replay(settings: Settings, state: Path, request: Request) -> Iterator[str]:
    names = [destination.name for destination in settings.destinations]
    if request.destination not in names:
        raise ConfigError([f"--destination must be one of {', '.join(names) or 'those in the config, which has none'}"])
    now = time.time()
    start, end = _moment(request.since, "--from", now), _moment(request.until or "now", "--to", now)
    if start >= end:
        raise ConfigError(["--from must be earlier than --to"])
    count = 0

    def addressed() -> Iterator[Address]:
        nonlocal count
        for entry in _records(state / "spool"):
            at = _when(entry)
            if at is not None and start * _NANO <= at < end * _NANO:
                count += 1
                yield Address(request.destination, entry.payload, entry.kind)

    _write(state, "replay", addressed())
    yield f"{count} records from {_time(start)} to {_time(end)} are on their way to {request.destination}."


def _records(spool: Path) -> Iterator[Entry]:
    """Yield every record of the spool that is readable, each writer's in order."""
    for name in find_segments(spool):
        try:
            reader = SegmentReader(name.path)
        except OSError:
            continue
        try:
            while reader.supported and (entries := reader.read()):
                yield from entries
        finally:
            reader.close()


def _when(entry: Entry) -> int | None:
    """Return when a record's request started, in nanoseconds since the epoch; None for what is no record."""
    try:
        if entry.kind == RECORD:
            return records.decode(entry.payload).start
        if entry.kind == OTLP:
            return min((span.start_time or 0 for span in otlp_spans.decode(entry.payload)), default=None)
    except Exception:  # noqa: BLE001 - the pipeline has set it aside, for whatever reason it had
        return None
    return None


def _write(state: Path, purpose: str, addressed: Iterator[Address]) -> None:
    writer = SegmentWriter(state / "spool", f"{purpose}_{os.getpid()}_{time.time_ns()}")
    try:
        for address in addressed:
            writer.append(encode(address), ADDRESSED)
    except OSError as error:
        raise StartError(f"{state}/spool: {error.strerror}; what was written until then is sent.") from None
    finally:
        writer.close()


def _moment(text: str, flag: str, now: float) -> float:
    """Return a time in seconds since the epoch: ISO 8601 (UTC unless it says otherwise), ``now``, or ``2h`` ago."""
    if text == "now":
        return now
    if text[-1:] in _UNITS and text[:-1].replace(".", "", 1).isdecimal():
        return now - float(text[:-1]) * _UNITS[text[-1]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError([f"{flag} must be a time such as 2026-01-31T12:00, or 30m, 2h, 1d ago"]) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
