"""A pipeline to be killed again and again, which is slow where it hurts.

``python -m tests.collector.mortal HOME RETENTION``: every line on standard input is the seed of a life, which is forked
and whose process id is printed. An empty line kills it.
Each batch that a destination is given is a line in the file ``tries``, before it is answered.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector import pipeline
from otelgw_collector.head import Head
from otelgw_collector.journal import Journal
from otelgw_collector.ledger import Ledger
from otelgw_collector.pipeline import Batching, Destination, Pipeline, Retention
from otelgw_collector.sweeper import Sweeper
from otelgw_exporters.delivery import Outcome, all_done, all_retry
from tests.collector.destinations import Scripted, Spool

__all__ = ["DESTINATIONS", "build"]

DESTINATIONS = ("one", "two", "three")
BATCHING = Batching(records=3, linger=0.02, first=0.005, idle=0.1, queue_records=6)
# Where a kill between two steps might leave them at odds with each other.
STEPS: tuple[tuple[type[Any], str], ...] = (
    (Head, "_put_on_record"),
    (Head, "bury"),
    (Journal, "begin"),
    (Journal, "saved"),
    (Journal, "start"),
    (Ledger, "keep"),
    (Ledger, "save"),
    (Sweeper, "_delete"),
)


def build(home: Path, retention: float, rng: random.Random | None = None) -> Pipeline[Any]:
    """Return a pipeline over the spool in ``home``; with ``rng`` its destinations are slow and down at times."""
    destinations = [_destination(name, home / "tries", rng) for name in DESTINATIONS]
    return Spool(home).pipeline(
        *destinations, killed=lambda payload: b"killed " + payload, retention=Retention(delivered=retention)
    )


def _destination(name: str, tries: Path, rng: random.Random | None) -> Destination[list[ReadableSpan]]:
    log = os.open(tries, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def answer(spans: Sequence[ReadableSpan]) -> Outcome:
        os.write(log, json.dumps([name, [span.name for span in spans]]).encode() + b"\n")
        mood = rng.random() if rng is not None else 1.0
        if mood < 0.2:
            return all_retry(len(spans), "down")
        time.sleep(mood / 5 if mood < 0.4 else 0)
        return all_done(len(spans))

    def select(spans: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
        if rng is not None and rng.random() < 0.2:
            time.sleep(rng.random() * 0.03)
        return spans

    return Scripted(name, answer).destination(BATCHING, select=select)


def slowed(step: Callable[..., Any], rng: random.Random, *, before: bool) -> Callable[..., Any]:
    """Return ``step`` with a pause at times, before or after it."""

    def slow(*arguments: Any, **options: Any) -> Any:
        pause = rng.random() * 0.05 if rng.random() < 0.3 else 0.0
        time.sleep(pause if before else 0.0)
        found = step(*arguments, **options)
        time.sleep(0.0 if before else pause)
        return found

    return slow


def live(home: Path, retention: float, seed: int) -> None:
    """Run a pipeline until it is killed, or told to stop by SIGTERM."""
    rng = random.Random(seed)
    pipeline._SAVE = rng.choice((0.02, 0.1, 0.25, 3600.0))
    pipeline._BUSY, pipeline._IDLE = 0.002, 0.01
    for owner, name in STEPS:
        setattr(owner, name, slowed(getattr(owner, name), rng, before=rng.random() < 0.5))
    running = build(home, retention, rng)
    limit = rng.choice((0.0, 0.05, 0.3))
    signal.signal(signal.SIGTERM, lambda *_: running.stop(limit))
    running.run()


def main() -> None:
    """Fork one life after the other."""
    logging.disable(logging.CRITICAL)
    home, retention = Path(sys.argv[1]), float(sys.argv[2])
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if not child:
                live(home, retention, int(line))
                os._exit(0)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
