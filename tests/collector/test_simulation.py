"""The pipeline's state under a virtual clock: lanes, ledger and journal, scripted destinations, crashes at any moment.

No threads and no waiting: every seed is one history, the same each time; 200 of them, and 1,000 where
``CI`` is set. Run one again with ``SIMULATION_SEED=17``.
"""

from __future__ import annotations

import os
import random
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.journal import Journal, resumed
from otelgw_collector.lane import Batch, Batching, Destination, Frozen, Item, Lane, letter_key
from otelgw_collector.ledger import Changes, Ledger
from otelgw_collector.letters import Key, Letter
from otelgw_collector.pipeline import _freezable
from otelgw_collector.retry import RetryPolicy
from otelgw_exporters.delivery import Outcome, Verdict
from tests.collector.destinations import Scripted, decode

COUNT = 1000 if os.environ.get("CI") else 200
SEEDS = [int(os.environ["SIMULATION_SEED"])] if "SIMULATION_SEED" in os.environ else list(range(COUNT))
BATCHING = Batching(records=4, size=400, queue_records=6, queue_size=600, linger=0.5, first=0.05, idle=1.0)
SEGMENT, SIZE, RECORDS = "w0-00000001.seg:ff", 50, 40


@dataclass
class World:
    """What lasts: the spool's records, the ledger, and what each destination has been given."""

    ledger: Ledger
    journal: Path
    rng: random.Random
    written: int = 0
    now: float = 0.0
    taken: dict[str, list[str]] = field(default_factory=dict)
    dead: dict[str, set[str]] = field(default_factory=dict)
    tries: dict[str, list[str]] = field(default_factory=dict)
    batches: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (destination, span): its first batch

    def item(self, number: int) -> Item[list[ReadableSpan]]:
        end = (number + 1) * (SIZE + 14)
        return Item(SEGMENT, end, SIZE, decode(f"{number:08}".encode()))


class Process:
    """One life of the pipeline: memory that a crash takes away."""

    def __init__(self, world: World, names: list[str]) -> None:
        self.world = world
        self.head = 0
        self.lanes: list[Lane[list[ReadableSpan]]] = []
        self.journal = Journal(world.journal)
        world.ledger.enlist(names)
        for name in names:
            frozen = world.ledger.frozen(name)
            thaw = msgspec.json.decode(frozen, type=Frozen) if frozen else None
            destination = Destination(
                name, Scripted(name), lambda spans: spans, BATCHING, RetryPolicy(1.0, 8.0, limit=60)
            )
            cursors = world.ledger.cursors(name)
            self.lanes.append(
                Lane(destination, cursors, deque(resumed(thaw, self.journal.found.get(name, []), cursors)))
            )
        self.journal.start({lane.destination.name: tuple(lane.thaw) for lane in self.lanes})
        self.head = max(self.number(lane.done.get(SEGMENT, 0)) for lane in self.lanes)

    @staticmethod
    def number(offset: int) -> int:
        return offset // (SIZE + 14)

    def read(self) -> None:
        """The head reads one record; lanes that do not follow read it later."""
        if self.head >= self.world.written:
            return
        item = self.world.item(self.head)
        self.head += 1
        for lane in self.lanes:
            if lane.following:
                lane.offer(item, self.world.now)

    def step(self, lane: Lane[list[ReadableSpan]]) -> None:
        """What a courier does when it gets to run."""
        world = self.world
        if lane.thaw and lane.batch is None:
            self.thaw(lane, lane.thaw[0])
        elif lane.idle and self.number(lane.read.get(SEGMENT, 0)) < self.head:
            start = self.number(lane.read.get(SEGMENT, 0))
            items = [world.item(number) for number in range(start, min(self.head, start + 3))]
            lane.following = False
            lane.take_in(items, SEGMENT, items[-1].end)
        elif lane.idle:
            lane.following = True
        elif lane.pause(world.now, draining=False) == 0:
            if lane.batch is None:
                items = lane.take(world.now)
                spans = [span for item in items for span in item.subject]
                begun = lane.begin(spans, items, items, world.now)
                self.journal.begin(lane.destination.name, begun.number, Frozen(begun.runs))
                if world.rng.random() < 0.1:
                    return
            assert lane.batch is not None
            self.deliver(lane, lane.batch)

    def thaw(self, lane: Lane[list[ReadableSpan]], frozen: Frozen) -> None:
        numbers = [n for run in frozen.runs for n in range(self.number(run.start), self.number(run.end))]
        items = [self.world.item(number) for number in numbers]
        kept = [item for item in items if frozen.spans is None or letter_key(item.subject[0]) in frozen.spans]
        lane.begin([item.subject[0] for item in kept], items, kept, self.world.now, frozen.whole)

    def deliver(self, lane: Lane[list[ReadableSpan]], batch: Batch) -> None:
        world, name = self.world, lane.destination.name
        names = [span.name for span in batch.spans]
        if batch.tries:
            again = iter(world.tries[name])
            assert all(each in again for each in names), "a retry is of the same spans, in the same order"
        world.tries[name] = names
        first = [world.batches.setdefault((name, each), names) for each in names]
        assert all(each is first[0] for each in first), "a span is never in another batch than the first time"
        assert [each for each in first[0] if each in names] == names if names else True
        mood = world.rng.choices(["up", "down", "mixed", "asks"], weights=MOODS[name])[0]
        states = {
            "up": ["done"] * len(names),
            "down": ["retry"] * len(names),
            "asks": ["retry"] * len(names),
            "mixed": world.rng.choices(["done", "retry", "dead"], k=len(names)),
        }[mood]
        after = world.rng.uniform(0, 20) if mood == "asks" else None
        outcome = Outcome(tuple(Verdict(state, "why", after) for state in states))  # type: ignore[arg-type]
        outcome = lane.judged(outcome, world.now)
        letters = []
        for span, source, verdict in zip(batch.spans, batch.sources, outcome.verdicts, strict=True):
            if verdict.state == "done":
                world.taken.setdefault(name, []).append(span.name)
            elif verdict.state == "dead":
                letters.append(Letter(Key(name, "t", span.name), span.name, "why", 0.0, str(source.place)))
        lane.dead += letters
        lane.settle(outcome, world.now, world.rng.random)

    def save(self) -> None:
        changes = Changes(
            cursors={lane.destination.name: dict(lane.done) for lane in self.lanes},
            frozen={lane.destination.name: self.frozen(lane) for lane in self.lanes},
            dead=[letter for lane in self.lanes for letter in lane.dead],
        )
        assert self.world.ledger.save(changes)
        if self.world.rng.random() < 0.9:  # else it is killed in between
            self.journal.saved({lane.destination.name: lane.reached for lane in self.lanes})
        for lane in self.lanes:
            self.world.dead.setdefault(lane.destination.name, set()).update(letter.name for letter in lane.dead)
            lane.dead.clear()

    @staticmethod
    def frozen(lane: Lane[list[ReadableSpan]]) -> str | None:
        batch = _freezable(lane, force=False)
        return msgspec.json.encode(batch).decode() if batch is not None else None

    @property
    def finished(self) -> bool:
        return all(lane.idle and lane.done.get(SEGMENT, 0) >= RECORDS * (SIZE + 14) for lane in self.lanes)


MOODS = {"healthy": (1, 0, 0, 0), "flapping": (3, 2, 1, 1), "poisoned": (1, 1, 4, 0), "black hole": (0, 1, 0, 0)}


def history(seed: int, ledger: Ledger, journal: Path) -> World:
    world = World(ledger, journal, random.Random(seed))
    names = list(MOODS)
    process = Process(world, names)
    for _ in range(20_000):
        if process.finished:
            break
        world.now += world.rng.choice((0.0, 0.0, 0.01, 0.3, 2.0))
        event = world.rng.random()
        if event < 0.25 and world.written < RECORDS:
            world.written += 1
        elif event < 0.5:
            process.read()
        elif event < 0.6:
            process.save()
        elif event < 0.603:
            process.journal.close()
            process = Process(world, names)  # kill -9: what was not saved is gone
        else:
            process.step(world.rng.choice(process.lanes))
        for lane in process.lanes:
            assert len(lane.queue) <= BATCHING.queue_records + 3
    assert process.finished, "it never came to an end"
    process.save()
    process.journal.close()
    return world


@pytest.mark.parametrize("start", SEEDS[:: max(1, len(SEEDS) // 10)] or SEEDS)
def test_whatever_happens_every_span_is_delivered_or_a_dead_letter_and_no_other_destination_matters(
    start: int, tmp_path: Path
) -> None:
    for seed in range(start, start + max(1, len(SEEDS) // 10)):
        ledger = Ledger(tmp_path / f"{seed}.db")
        try:
            world = history(seed, ledger, tmp_path / f"{seed}.batches")
            expected = {f"{number:08}" for number in range(RECORDS)}
            for name in MOODS:
                got, dead = set(world.taken.get(name, ())), world.dead.get(name, set())
                assert got | dead == expected, name
            assert not world.dead["healthy"]
            assert not world.taken.get("black hole")
        except Exception as error:
            pytest.fail(f"SIMULATION_SEED={seed}: {error!r}")
        finally:
            ledger.close()
