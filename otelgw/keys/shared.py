"""Rates that gateways on several machines count together, in Redis or Valkey.

Each subject has a hash with the requests and tokens of its minute, which begins with its first request and ends by the
hash's expiry; one script looks at all limits of a request and counts it, or does not. Where Redis does not answer in
time the worker goes by the counts of its own machine: a limit may then be exceeded by as many times as there are
machines, and no caller is refused for the sake of a broken Redis.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from otelgw.errors import OtelgwError
from otelgw.keys.table import WINDOW, Counted, Refusal, Subject

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["SharedRates"]

log = logging.getLogger(__name__)

_PATIENCE = 0.25  # seconds for an answer
_REST = 1.0  # seconds in which it is not asked again after it failed
_QUIET = 60.0  # seconds between two log lines about that
_PREFIX = "otelgw:rate:"
_TAKE = """
local state = {}
for i, key in ipairs(KEYS) do
    local counts = redis.call('HMGET', key, 'r', 't')
    local requests, tokens = tonumber(counts[1]) or 0, tonumber(counts[2]) or 0
    local rpm, tpm = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local left = redis.call('PTTL', key)
    if left < 0 then left = tonumber(ARGV[1]) end
    if rpm >= 0 and requests >= rpm then return {0, i, 1, left} end
    if tpm >= 0 and tokens >= tpm then return {0, i, 2, left} end
    state[i] = {requests + 1, tokens, left}
end
local found = {1}
for i, key in ipairs(KEYS) do
    redis.call('HINCRBY', key, 'r', 1)
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ARGV[1]) end
    for _, value in ipairs(state[i]) do table.insert(found, value) end
end
return found
"""
_CHARGE = """
for _, key in ipairs(KEYS) do
    redis.call('HINCRBY', key, 't', ARGV[2])
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ARGV[1]) end
end
"""
_WINDOW = int(WINDOW * 1000)
_LIMITS = {1: "rpm", 2: "tpm"}


class SharedRates:
    """One worker's client. ``failures`` counts requests and charges that Redis was not there for.

    Raises:
        OtelgwError: redis is not installed, or the URL is none.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._client: Redis | None = None
        self._take: Any = None
        self._charge: Any = None
        self._resting_until = 0.0
        self._told_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0

    async def take(self, subjects: Sequence[Subject]) -> list[Counted] | Refusal | None:
        """Count one request of all ``subjects``, or of none if a limit of any is used up; None: ask somebody else."""
        quotas = [subject.quota for subject in subjects]
        limits = [-1 if each is None else each for quota in quotas for each in (quota.rpm, quota.tpm)]
        found = await self._run("take", subjects, [_WINDOW, *limits])
        if found is None:
            return None
        if not found[0]:
            return Refusal(subjects[found[1] - 1], _LIMITS[found[2]], found[3] / 1000)
        counted = []
        for index, quota in enumerate(quotas):
            requests, tokens, left = found[1 + 3 * index : 4 + 3 * index]
            counted.append(
                Counted(
                    None if quota.rpm is None else max(0, quota.rpm - requests),
                    None if quota.tpm is None else max(0, quota.tpm - tokens),
                    left / 1000,
                )
            )
        return counted

    def charge(self, subjects: Sequence[Subject], tokens: int) -> None:
        """Count tokens, without making anybody wait."""
        limited = [subject for subject in subjects if subject.quota.tpm is not None]
        if not limited or not tokens:
            return

        async def send() -> None:
            await self._run("charge", limited, [_WINDOW, tokens])

        task = asyncio.get_running_loop().create_task(send())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Let what is being sent arrive, and close the connections."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE)
        if self._client is not None:
            await self._client.aclose()

    async def _run(self, name: str, subjects: Sequence[Subject], arguments: list[int]) -> Any:
        if self._clock() < self._resting_until:
            self.failures += 1
            return None
        import redis.exceptions

        try:
            script = self._script(name)
            return await script(keys=[_PREFIX + subject.name for subject in subjects], args=arguments) or 1
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        self.failures += 1
        self._resting_until = now + _REST
        if now - self._told_at >= _QUIET:
            self._told_at = now
            log.warning(
                "Redis does not answer (%s): rates are counted by this machine alone until it does (%d so far)",
                type(error).__name__,
                self.failures,
            )

    def _script(self, name: str) -> Any:
        if self._client is None:
            self._client = _client(self._url)
            self._take, self._charge = (self._client.register_script(each) for each in (_TAKE, _CHARGE))
        return self._take if name == "take" else self._charge


def _client(url: str) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise OtelgwError("Redis needs its client: pip install 'otelgw[redis]'") from None
    client: Redis = Redis.from_url(
        url,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        # Once more at once, for a connection that the server has closed meanwhile.
        retry=Retry(NoBackoff(), 1),
        health_check_interval=0,
    )
    return client
