"""Rates counted in a real Redis, by several machines."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from otelgw.keys.schema import Quota
from otelgw.keys.shared import SharedRates
from otelgw.keys.table import Counted, Refusal, Subject
from tests.servers.ports import free_port
from tests.servers.redis import Redis

T = TypeVar("T")


def with_clients(dsn: str, count: int, use: Callable[..., Awaitable[T]]) -> T:
    async def run() -> T:
        clients = [SharedRates(dsn) for _ in range(count)]
        try:
            return await use(*clients)
        finally:
            for client in clients:
                await client.aclose()

    return asyncio.run(run())


def subject(quota: Quota) -> Subject:
    return Subject(f"key:{uuid.uuid4().hex}", quota)


def test_machines_together_take_exactly_the_limit(redis: Redis) -> None:
    limited, team = subject(Quota(rpm=50)), subject(Quota(rpm=40))

    async def use(*machines: SharedRates) -> int:
        outcomes = await asyncio.gather(*(machines[n % 3].take([limited, team]) for n in range(120)))
        return sum(isinstance(outcome, list) for outcome in outcomes)

    assert with_clients(redis.dsn, 3, use) == 40


def test_what_is_refused_says_by_whom_and_for_how_long(redis: Redis) -> None:
    limited = subject(Quota(rpm=1, tpm=1000))

    async def use(machine: SharedRates) -> list[object]:
        return [await machine.take([limited]), await machine.take([limited])]

    first, second = with_clients(redis.dsn, 1, use)
    assert isinstance(first, list)
    assert first == [Counted(0, 1000, pytest.approx(60, abs=1))]
    assert isinstance(second, Refusal)
    assert (second.subject, second.limit) == (limited, "rpm")
    assert 59 < second.after <= 60


def test_tokens_that_one_machine_charges_another_sees(redis: Redis) -> None:
    limited = subject(Quota(tpm=100))

    async def use(one: SharedRates, other: SharedRates) -> list[object]:
        one.charge([limited], 60)
        one.charge([limited], 60)
        await asyncio.wait(one._tasks)
        return [await other.take([limited])]

    (refusal,) = with_clients(redis.dsn, 2, use)
    assert isinstance(refusal, Refusal)
    assert refusal.limit == "tpm"


def test_a_redis_that_is_not_there_is_no_reason_to_refuse_anybody(caplog: pytest.LogCaptureFixture) -> None:
    limited = subject(Quota(rpm=1, tpm=1))

    async def use(machine: SharedRates) -> tuple[list[object], int]:
        begun = time.monotonic()
        found = [await machine.take([limited]) for _ in range(20)]
        assert time.monotonic() - begun < 5
        machine.charge([limited], 5)
        return found, machine.failures

    with caplog.at_level(logging.WARNING):
        found, failures = with_clients(f"redis://:pw-canary@127.0.0.1:{free_port()}/0", 1, use)

    assert found == [None] * 20
    assert failures >= 20
    assert "Redis does not answer" in caplog.text
    assert "pw-canary" not in caplog.text


def test_a_redis_that_comes_back_is_asked_again(redis: Redis) -> None:
    limited = subject(Quota(rpm=5))
    port = free_port()
    now = [0.0]

    async def use() -> list[object]:
        machine = SharedRates(f"redis://:redis-canary@127.0.0.1:{port}/0", clock=lambda: now[0])
        found: list[object] = [await machine.take([limited])]
        with Redis(redis._command[0], port):  # type: ignore[arg-type]
            found.append(await machine.take([limited]))
            now[0] = 2.0
            found.append(await machine.take([limited]))
        await machine.aclose()
        return found

    down, resting, back = asyncio.run(use())
    assert (down, resting) == (None, None)
    assert isinstance(back, list)
