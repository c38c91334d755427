"""``python -m benchmarks``: CPU per request and added latency of the gateway, beside a direct call and nginx.

Starts a static upstream, a null OTLP receiver, nginx (if installed) and the gateway under each of its servers, with
content capture and the spool on; loads one after the other, in rounds; prints the best of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.load import LoadError
from benchmarks.measure import Cell, Workload, measure, warm_up, workload
from benchmarks.processes import PROC, StartFailedError
from benchmarks.report import tables
from benchmarks.targets import EXTRA, NAMES, Backends, Target, start_backends, start_target

STREAMS_PER_CONNECTION = 20  # each takes half a second


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--rounds", type=int, default=2, help="how often each cell is measured (default 2)")
    parser.add_argument(
        "--only",
        default=",".join(NAMES),
        help=f"comma list of targets (default {','.join(NAMES)}; others: {', '.join(EXTRA)})",
    )
    parser.add_argument(
        "--concurrency", default="1,16,64", help="comma list of numbers of connections (default 1,16,64)"
    )
    parser.add_argument("--requests", type=int, default=10000, help="requests in a cell, 0 for none (default 10000)")
    parser.add_argument(
        "--streams",
        type=int,
        default=640,
        help=f"streams in a cell, at most {STREAMS_PER_CONNECTION} a connection, 0 for none (default 640)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's numbers to FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.only.split(",")) - {*NAMES, *EXTRA}:
        parser.error(f"--only: unknown target {', '.join(sorted(unknown))}; known: {', '.join((*NAMES, *EXTRA))}")
    return arguments


def _machine() -> dict[str, object]:
    lines = (PROC / "cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text.ljust(60), end="\r", file=sys.stderr, flush=True)


def _rounds(arguments: argparse.Namespace, targets: list[Target], backends: Backends) -> list[Cell]:
    levels = [int(level) for level in arguments.concurrency.split(",")]
    plan: list[tuple[Workload, int, int]] = []
    if arguments.requests:
        work = workload("requests", backends)
        plan += [(work, level, arguments.requests) for level in levels]
    if arguments.streams:
        work = workload("streams", backends)
        plan += [(work, level, min(arguments.streams, STREAMS_PER_CONNECTION * level)) for level in levels]
    for work in {id(work): work for work, _, _ in plan}.values():
        for target in targets:
            warm_up(target, work, backends)
    cells = []
    for number in range(1, arguments.rounds + 1):
        for work, level, count in plan:
            for target in targets:
                _progress(f"round {number}: {work.kind} c={level} {target.name}")
                cells.append(measure(target, work, backends, count=count, concurrency=level))
    _progress("")
    return cells


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    if not PROC.joinpath("self/stat").exists():
        print("the benchmark reads CPU times from /proc and runs on Linux only", file=sys.stderr)
        return 2
    machine = _machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), end="\n\n")
    try:
        with tempfile.TemporaryDirectory(prefix="otelgw-bench-") as name, contextlib.ExitStack() as stack:
            directory = Path(name)
            backends = stack.enter_context(start_backends(directory))
            targets = []
            for wanted in arguments.only.split(","):
                target = stack.enter_context(start_target(wanted, backends, directory))
                if target is None:
                    print(f"{wanted} is not installed: left out", file=sys.stderr)
                else:
                    targets.append(target)
            try:
                cells = _rounds(arguments, targets, backends)
            except LoadError:
                for process in (backends.upstream, backends.sink, *(target.process for target in targets)):
                    if process and (output := process.tail().strip()):
                        print(f"{process.name}{'' if process.alive else ' has ended'}:\n{output}", file=sys.stderr)
                raise
    except (LoadError, StartFailedError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    print(tables(cells, arguments.rounds))
    if arguments.json:
        options = {key: value for key, value in vars(arguments).items() if key != "json"}
        result = {"machine": machine, "options": options, "cells": [cell.as_dict() for cell in cells]}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
