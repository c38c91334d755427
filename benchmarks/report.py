"""Cells -> tables: the best of the rounds, beside what a direct call took in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.measure import Cell

__all__ = ["tables"]

CPU_COUNT = 100  # answers below which a clock tick of 10 ms is too coarse for CPU per answer

Columns = Sequence[tuple[str, Callable[[Cell, Cell | None], str]]]


def _cpu(value: float | None, count: int) -> str:
    return "-" if value is None or count < CPU_COUNT else f"{value:.3f}"


def _added(field: str) -> Callable[[Cell, Cell | None], str]:
    def show(cell: Cell, direct: Cell | None) -> str:
        if direct is None or direct is cell:
            return "-"
        return f"{getattr(cell, field) - getattr(direct, field):.2f}"

    return show


COMMON: Columns = (
    ("target", lambda cell, _: cell.target),
    ("c", lambda cell, _: str(cell.concurrency)),
    ("CPU s/1000", lambda cell, _: _cpu(cell.cpu, cell.count)),
    ("pipeline", lambda cell, _: _cpu(cell.pipeline_cpu, cell.count)),
    ("RSS MB", lambda cell, _: f"{cell.rss / 1e6:.0f}" if cell.rss else "-"),
)
REQUESTS: Columns = (
    *COMMON,
    ("req/s", lambda cell, _: f"{cell.rate:.0f}"),
    ("p50 ms", lambda cell, _: f"{cell.p50:.2f}"),
    ("p99 ms", lambda cell, _: f"{cell.p99:.2f}"),
    ("added p50", _added("p50")),
    ("added p99", _added("p99")),
)
STREAMS: Columns = (
    *COMMON,
    ("streams/s", lambda cell, _: f"{cell.rate:.1f}"),
    ("first p50 ms", lambda cell, _: f"{cell.first_p50:.2f}"),
    ("first p99 ms", lambda cell, _: f"{cell.first_p99:.2f}"),
    ("added p50", _added("first_p50")),
    ("added p99", _added("first_p99")),
)


def _best(cells: Sequence[Cell]) -> Cell:
    """Return the least CPU, the lowest latencies and the highest rate of the rounds: noise only ever adds."""

    def least(values: Iterable[float | None]) -> float | None:
        return min((value for value in values if value is not None), default=None)

    first = cells[0]
    return Cell(
        target=first.target,
        kind=first.kind,
        concurrency=first.concurrency,
        count=first.count,
        cpu=least(cell.cpu for cell in cells),
        pipeline_cpu=least(cell.pipeline_cpu for cell in cells),
        rss=max(cell.rss for cell in cells),
        rate=max(cell.rate for cell in cells),
        p50=min(cell.p50 for cell in cells),
        p99=min(cell.p99 for cell in cells),
        first_p50=min(cell.first_p50 for cell in cells),
        first_p99=min(cell.first_p99 for cell in cells),
        missing=sum(cell.missing for cell in cells),
    )


def _table(columns: Columns, cells: Sequence[Cell]) -> str:
    direct = {cell.concurrency: cell for cell in cells if cell.target == "direct"}
    rows = [[title for title, _ in columns]]
    rows += [[show(cell, direct.get(cell.concurrency)) for _, show in columns] for cell in cells]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = []
    for row in rows:
        name, *numbers = row
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def tables(cells: Sequence[Cell], rounds: int) -> str:
    """Return the tables of requests and of streams, and a line for every target whose spans did not all arrive."""
    groups: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind, cell.concurrency, cell.target), []).append(cell)
    best = [_best(group) for group in groups.values()]
    parts = []
    for kind, columns, note in (
        ("requests", REQUESTS, "latency from the request's write to the last byte"),
        ("streams", STREAMS, "time from the request's write to the first byte of the body"),
    ):
        chosen = [cell for cell in best if cell.kind == kind]
        if chosen:
            numbers = sorted({(cell.concurrency, cell.count) for cell in chosen})
            counts = ", ".join(f"{count} at c={concurrency}" for concurrency, count in numbers)
            parts.append(f"{kind}: best of {rounds} round(s), {counts}; {note}\n{_table(columns, chosen)}")
    parts += [
        f"{cell.target}: {cell.missing} of the generations ({cell.kind}, c={cell.concurrency}) did not reach the sink"
        for cell in best
        if cell.missing
    ]
    return "\n\n".join(parts)
