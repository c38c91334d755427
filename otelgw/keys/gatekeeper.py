"""Who is let in, how often, and what it costs them: one worker's use of the keys.

Keys are held in memory for a while, so that a request asks no database. A change that any worker of this machine makes
is seen by all of them with their next request; one made on another machine within ``_FRESH`` seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from otelgw.config.settings import Settings
from otelgw.errors import GatewayError, RequestRefused
from otelgw.http.auth import Authenticator
from otelgw.http.exchange import Exchange
from otelgw.keys.consumption import consumption
from otelgw.keys.database import StoreError
from otelgw.keys.directory import Directory
from otelgw.keys.grant import Grant, grant
from otelgw.keys.logins import Logins
from otelgw.keys.schema import period_end
from otelgw.keys.shared import SharedRates
from otelgw.keys.store import open_store
from otelgw.keys.table import Counted, Refusal, Subject, Table
from otelgw.tracing.record import Caller

__all__ = ["Gatekeeper"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FRESH = 10.0  # seconds for which a key is taken to be as it was
_STALE = 300.0  # the same while the store cannot be asked
_MOST = 50_000  # keys held in memory
_SAVE = 1.0  # seconds between two writes of what was spent
_NEVER = 3600  # Retry-After of a budget that is not renewed by itself, seconds
_UNIT = {"rpm": "requests a minute", "tpm": "tokens a minute"}


class _Held(NamedTuple):
    grant: Grant | None
    generation: int
    at: float


class Gatekeeper:
    """One per worker, on its event loop."""

    def __init__(self, settings: Settings, auth: Authenticator) -> None:
        keys = settings.keys
        self.settings = settings
        self.auth = auth
        self._state_dir = Path(settings.state_dir)
        self.directory = Directory(keys, open_store(self._state_dir, keys.database_url))
        self._logins = Logins(settings.server.workers)
        self._shared = SharedRates(keys.redis_url) if keys.redis_url else None
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Grant | None]] = {}
        self._mapped: Table | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._unsaved: dict[str, Subject] = {}
        self._saving: asyncio.Task[None] | None = None
        self._saver = -1  # the lock of whoever writes down what was spent
        self._told_at = float("-inf")

    @property
    def table(self) -> Table:
        """The counters of this machine, made when they are first needed; of this worker if the disk has no room."""
        if self._mapped is None:
            try:
                self._mapped = Table(self._state_dir / "limits.table")
            except OSError as error:
                log.error("limits.table: %s; every worker counts for itself", error.strerror)  # noqa: TRY400
                self._mapped = Table(None)
        return self._mapped

    @property
    def uncounted(self) -> int:
        """Requests that were not counted as their limits ask for, because Redis or the table had no place for them."""
        shared = self._shared.failures if self._shared is not None else 0
        return shared + (self._mapped.full if self._mapped is not None else 0)

    async def call(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Run something that blocks in the store's thread."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "keys")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def admit_known(self, exchange: Exchange) -> bool:
        """Find out who calls where that is known here; return whether it is, else ``admit`` has to ask.

        Raises:
            RequestRefused: 401 for no, an expired or a blocked key.
        """
        digest, caller = self._key_of(exchange)
        if caller is not None:
            exchange.caller = caller
            return True
        if not digest:
            raise RequestRefused("unauthorized", "A key is needed. Send it as Authorization: Bearer <key>.")
        found = self._remembered(digest)
        if found is not None:
            self._accept(exchange, found)
        return found is not None

    async def admit(self, exchange: Exchange) -> None:
        """Find out who calls, by the store.

        Raises:
            RequestRefused: 401 for an unknown, an expired or a blocked key; 429 after too many unknown ones.
            GatewayError: 503: the key is not known here and the store cannot be asked.
        """
        digest, _ = self._key_of(exchange)
        address = (exchange.scope.get("client") or ("",))[0]
        # A key that was good before is not guessed: others at its address must not keep it out.
        wait = 0.0 if digest in self._held else self._logins.wait(address, time.monotonic())
        if wait > 0:
            raise RequestRefused(
                "rate_limited", "Too many unknown keys from this address.", retry_after=math.ceil(wait)
            )
        found = await self._loaded(digest)
        if found is None:
            self._logins.failed(address, time.monotonic())
            raise RequestRefused("unauthorized", "The key is not known. Send it as Authorization: Bearer <key>.")
        self._accept(exchange, found)

    def _key_of(self, exchange: Exchange) -> tuple[str, Caller | None]:
        findings = exchange.findings
        if findings.key is None:
            findings.key = self.auth.recognise(exchange.headers)
        return findings.key

    def _accept(self, exchange: Exchange, found: Grant) -> None:
        # Who it is goes onto the trace also of a key that is not accepted any more.
        exchange.caller = msgspec.structs.replace(found.caller, authenticated=False)
        found.check(time.time())
        exchange.caller, exchange.grant = found.caller, found

    async def enter(self, exchange: Exchange, found: Grant) -> None:
        """Count a request against its key's and team's limits.

        Raises:
            RequestRefused: 429 rate_limited or budget_exceeded.
        """
        exchange.limit_headers = found.headers
        if not found.subjects:
            return
        now = time.time()
        shared = self._shared if found.rated else None
        outcome = self.table.take(found.subjects, now, rates=shared is None)
        if shared is not None and not isinstance(outcome, Refusal):
            answer = await shared.take(found.rated)
            outcome = self.table.take(found.subjects, now) if answer is None else answer
        if isinstance(outcome, Refusal):
            exchange.limit_headers = (*found.headers, *_refused_headers(outcome))
            raise _refusal(outcome)
        exchange.limit_headers = (*found.headers, *_rate_headers(outcome, found))

    def charge(self, exchange: Exchange, found: Grant) -> None:
        """Count what a request has used, when it has ended."""
        if not found.charged:
            return
        tokens, cost = consumption(exchange)
        if not tokens and not cost:
            return
        self.table.charge(found.subjects, tokens, cost, time.time())
        if self._shared is not None:
            self._shared.charge(found.subjects, tokens)
        if cost:
            self._unsaved |= {each.name: each for each in found.subjects if each.quota.budget is not None}
            self._save_soon()

    def changed(self) -> None:
        """A key or a team has changed: every worker of this machine is to look again."""
        self.table.changed()

    async def aclose(self) -> None:
        """Write down what was spent, and close everything."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        if self._unsaved:
            await self._save()
        if self._shared is not None:
            await self._shared.aclose()
        if self._executor is not None:
            self._executor.shutdown()
        self.directory.store.close()
        if self._mapped is not None:
            self._mapped.close()
        if self._saver >= 0:
            os.close(self._saver)

    def _remembered(self, digest: str) -> Grant | None:
        held = self._held.get(digest)
        if held is None or held.grant is None:
            return None
        fresh = time.monotonic() - held.at < _FRESH and held.generation == self.table.generation
        return held.grant if fresh else None

    async def _loaded(self, digest: str) -> Grant | None:
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(digest))
            self._loading[digest] = task
            task.add_done_callback(lambda _: self._loading.pop(digest, None))
        return await asyncio.shield(task)

    async def _load(self, digest: str) -> Grant | None:
        generation, at, asked = self.table.generation, time.monotonic(), time.time()
        try:
            found = await self.call(self.directory.find, digest)
        except StoreError as error:
            return self._kept(digest, error)
        if found is None:
            self._held.pop(digest, None)
            return None
        made = grant(found.key, found.team)
        for subject in made.subjects:
            if subject.quota.budget is not None:
                self._note_spent(subject, *found.spent[subject.name], asked)
        self._held[digest] = _Held(made, generation, at)
        self._held.move_to_end(digest)
        if len(self._held) > _MOST:
            self._held.popitem(last=False)
        return made

    def _kept(self, digest: str, error: StoreError) -> Grant | None:
        """Go by what was known of a key, for some minutes; the store will be asked again in a while.

        Raises:
            GatewayError: nothing is known, or for too long.
        """
        now = time.monotonic()
        self._tell(f"keys cannot be looked up: {error}")
        held = self._held.get(digest)
        if held is None or held.grant is None or now - held.at > _STALE:
            raise GatewayError(
                "keys_unavailable", "Keys cannot be looked up at the moment; try again.", retry_after=5
            ) from None
        return held.grant

    def _note_spent(self, subject: Subject, amount: float, resets_at: float, asked: float) -> None:
        slot = self.table.slot(subject.name, asked)
        if slot.known_at < asked:
            self.table.know(subject.name, amount, resets_at, asked)
        if slot.unsaved:
            self._unsaved[subject.name] = subject  # of a worker that was killed
            self._save_soon()

    def _save_soon(self) -> None:
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save_after(_SAVE))

    async def _save_after(self, seconds: float) -> None:
        while self._unsaved:
            await asyncio.sleep(seconds)
            await self._save()

    async def _save(self) -> None:
        """Write what was spent to the store, unless another worker is doing it: it would be counted twice."""
        try:
            if self._saver < 0:
                self._saver = os.open(self._state_dir / "limits.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._saver, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError as error:
            self._tell(f"what was spent cannot be written down yet: {error}")
            return
        try:
            for subject in list(self._unsaved.values()):
                await self._save_one(subject)
                self._unsaved.pop(subject.name, None)
        except StoreError as error:
            self._tell(f"what was spent cannot be written down yet: {error}")
        finally:
            fcntl.flock(self._saver, fcntl.LOCK_UN)

    async def _save_one(self, subject: Subject) -> None:
        now = time.time()
        unsaved = self.table.slot(subject.name, now).unsaved
        if unsaved > 0:
            ends = period_end(subject.quota.period, now)
            spend = await self.call(self.directory.store.add_spend, subject.name, unsaved, now, ends)
            self.table.know(subject.name, spend.amount, spend.resets_at, now, saved=unsaved)

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= 60.0:
            self._told_at = now
            log.error("%s", text)


def _refusal(refusal: Refusal) -> RequestRefused:
    quota = refusal.subject.quota
    whose = "The team" if refusal.subject.name.startswith("team:") else "The key"
    after = math.ceil(refusal.after)
    if refusal.limit == "budget":
        until = f"It is renewed in {after} s." if refusal.after else "It is not renewed by itself."
        return RequestRefused(
            "budget_exceeded",
            f"{whose}'s budget of {quota.budget:g} USD is used up. {until}",
            retry_after=after or _NEVER,
        )
    most = quota.rpm if refusal.limit == "rpm" else quota.tpm
    return RequestRefused(
        "rate_limited", f"{whose}'s {most} {_UNIT[refusal.limit]} are used up.", retry_after=max(1, after)
    )


def _rate_headers(counted: list[Counted], found: Grant) -> list[tuple[bytes, bytes]]:
    """Return OpenAI's headers for what is left: of the key or of its team, whichever has less."""
    headers = []
    subjects = found.rated if len(counted) == len(found.rated) else found.subjects
    for kind in ("requests", "tokens"):
        left = [
            (getattr(each, kind), subject.quota, each.resets_in)
            for subject, each in zip(subjects, counted, strict=False)
            if getattr(each, kind) is not None
        ]
        if left:
            least, quota, resets_in = min(left, key=lambda entry: entry[0])
            most = quota.rpm if kind == "requests" else quota.tpm
            headers += _headers(kind, most or 0, least, resets_in)
    return headers


def _refused_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    quota = refusal.subject.quota
    if refusal.limit == "rpm":
        return _headers("requests", quota.rpm or 0, 0, refusal.after)
    return _headers("tokens", quota.tpm or 0, 0, refusal.after) if refusal.limit == "tpm" else []


def _headers(kind: str, most: int, left: int, resets_in: float) -> list[tuple[bytes, bytes]]:
    name = kind.encode()
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % most),
        (b"x-ratelimit-remaining-" + name, b"%d" % left),
        (b"x-ratelimit-reset-" + name, b"%.3fs" % resets_in),
    ]
