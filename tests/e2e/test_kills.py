"""Processes killed at random moments under load: whatever a caller got an answer for arrives, and nothing else does.

``OTELGW_KILLS=50`` sets the number of moments (8 by default, 50 where CI is set), ``OTELGW_KILLS_SEED`` which ones.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tests.e2e.callers import Callers
from tests.e2e.moody import MOODS, MoodyDestination
from tests.servers.gateway import GatewayProcess
from tests.servers.upstream import Received, Script, ScriptedUpstream, openai, spaced

CONFIG = """
model_list:
- model_name: gpt-4o-mini
  litellm_params: {{model: openai/gpt-4o-mini, api_base: "{upstream}/v1", api_key: sk-x}}
otelgw:
  destinations: [{{name: otlp_http, endpoint: "{destination}"}}]
  server: {{workers: 2, drain: 5}}
"""
COUNT = int(os.environ.get("OTELGW_KILLS") or (50 if os.environ.get("CI") else 8))
SEED = int(os.environ.get("OTELGW_KILLS_SEED") or random.SystemRandom().randrange(10**6))
VICTIMS = ("worker", "master", "pipeline", "all")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
MODULES = {"worker": "otelgw.worker", "pipeline": "otelgw.pipeline_main"}
PATIENCE = 90.0  # seconds for everything that was acknowledged to arrive


class Moment(NamedTuple):
    """Who gets which signal, ``after`` how many seconds of load, and how the destination is by then."""

    victim: str
    signal: signal.Signals
    mood: str
    after: float


def moments(rng: random.Random, count: int) -> Iterator[Moment]:
    """Yield moments: every victim gets every signal once before any does again, moods follow each other likewise."""
    pairs: list[tuple[str, signal.Signals]] = []
    moods: list[str] = []
    for _ in range(count):
        pairs = pairs or rng.sample([(victim, number) for victim in VICTIMS for number in SIGNALS], k=8)
        moods = moods or rng.sample(MOODS, k=4)
        yield Moment(*pairs.pop(), moods.pop(), rng.uniform(0.1, 1.2))


class Lives:
    """A gateway that is started again on the same state whenever its master has ended, as a service manager does."""

    def __init__(self, directory: Path, config: str) -> None:
        self._directory = directory
        self._config = config
        self._all: list[GatewayProcess] = []

    @property
    def now(self) -> GatewayProcess:
        return self._all[-1]

    def start(self) -> None:
        directory = self._directory / f"life{len(self._all)}"
        directory.mkdir()
        env = {"OTELGW_STATE_DIR": str(self._directory / "state")}
        self._all.append(GatewayProcess(self._config, directory, env=env, group=True))
        self.now.__enter__()

    def send(self, moment: Moment, rng: random.Random) -> None:
        """Send a signal; start the gateway again if that was its end."""
        gateway = self.now
        if moment.victim == "all":
            os.killpg(gateway.process.pid, moment.signal)
        elif moment.victim == "master":
            os.kill(gateway.process.pid, moment.signal)
        else:
            there = gateway.children(MODULES[moment.victim])
            with contextlib.suppress(ProcessLookupError):  # one that is being started again already
                os.kill(rng.choice(there or [0x7FFFFFFE]), moment.signal)
        if moment.victim in {"master", "all"}:
            status = gateway.process.wait(45)
            assert status == (0 if moment.signal == signal.SIGTERM else -signal.SIGKILL), self.log()
            self.start()

    def log(self) -> str:
        return "\n".join(each.errors.read_text(errors="replace")[-4000:] for each in self._all[-2:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._all:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait(20)


def answers(request: Received) -> Script:
    """A little OpenAI that takes its time, so that there is always something in flight."""
    return spaced(openai(request), 0.01)


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def history(planned: Sequence[Moment], rng: random.Random, directory: Path) -> str:
    """Live through ``planned``; return what was found, for the curious."""
    with (
        MoodyDestination(rng.randrange(2**32)) as destination,
        ScriptedUpstream(answers) as upstream,
        Lives(directory, CONFIG.format(upstream=upstream.url, destination=destination.endpoint)) as lives,
        Callers(lives.now.url, seed=rng.randrange(2**32)) as callers,
    ):
        for number, moment in enumerate(planned, 1):
            destination.mood = moment.mood
            known = len(callers.acknowledged)
            assert wait_for(lambda known=known: len(callers.acknowledged) >= known + 20, 30), lives.log()
            time.sleep(moment.after)
            lives.send(moment, rng)
            callers.url = lives.now.url
            upstream.requests.clear()
            if number % 8 == 0:
                arrives(destination, set(callers.acknowledged), lives)
        callers.stop()
        arrives(destination, set(callers.acknowledged), lives)
        assert lives.now.stop(45) == 0, lives.log()
        judge(callers, destination)
        asked, acknowledged, taken = len(callers.asked), len(callers.acknowledged), len(destination.taken)
    return f"{asked} asked, {acknowledged} acknowledged, {taken} delivered, {destination.again} spans more than once"


def arrives(destination: MoodyDestination, acknowledged: set[str], lives: Lives) -> None:
    destination.mood = "healthy"
    arrived = wait_for(lambda: not destination.missing(acknowledged), PATIENCE)
    missing = destination.missing(acknowledged)
    assert arrived, f"{len(missing)} of {len(acknowledged)} are missing: {sorted(missing)[:5]}\n{lives.log()}"


def judge(callers: Callers, destination: MoodyDestination) -> None:
    assert not destination.missing(set(callers.acknowledged))
    assert destination.taken.keys() <= callers.asked
    cut = [
        trace_id
        for trace_id, status in callers.acknowledged.items()
        if status == 200 and len(destination.taken[trace_id]) < 3
    ]
    assert cut == [], "traces that are not whole"
    assert destination.altered == [], "spans that came again, and were others"
    assert destination.rebatched == [], "spans that came again in another request"


def test_every_acknowledged_call_is_delivered_whoever_is_killed_whenever(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    planned = list(moments(rng, COUNT))
    try:
        found = history(planned, rng, tmp_path)
    except (Exception, pytest.fail.Exception) as error:
        pytest.fail(f"OTELGW_KILLS={COUNT} OTELGW_KILLS_SEED={SEED}: {type(error).__name__}: {error}")
    print(found)
