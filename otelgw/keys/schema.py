"""What a virtual key and a team are. Plain values: they come from the config file or from the store, and are pickled.

The key itself is nowhere in here, only its hash (``otelgw.keys.hashing``).
"""

from __future__ import annotations

import calendar
import re
from datetime import MAXYEAR, UTC, datetime
from typing import Any

import msgspec

from otelgw.config.settings import LoggingPolicy

__all__ = ["Callback", "Key", "Quota", "Team", "merged_policy", "period_end", "seconds"]

_PERIOD = re.compile(r"([0-9]{1,6})(s|m|h|d|w|mo)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DEFAULT_POLICY = LoggingPolicy()


class Callback(msgspec.Struct, frozen=True):
    """One destination of a key's or team's own.

    ``name`` is LiteLLM's callback name or a destination's type; ``event`` is success, failure or success_and_failure.
    ``variables`` are the destination's settings as the config file gives them; those that came over HTTP are
    ``sealed``: their JSON, encrypted by ``otelgw.keys.sealing``, and a destination made of them is confined.
    """

    name: str
    event: str = "success_and_failure"
    variables: dict[str, Any] = {}
    sealed: str = ""
    confined: bool = False


class Quota(msgspec.Struct, frozen=True):
    """Requests and tokens a minute, and USD in a period (as ``period_end`` reads it); None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    budget: float | None = None
    period: str = ""

    @property
    def limits(self) -> bool:
        """True if anything is limited."""
        return self.rpm is not None or self.tpm is not None or self.budget is not None


class Team(msgspec.Struct, frozen=True):
    """A group of keys. What it limits, it limits for all of them together."""

    id: str
    alias: str = ""
    models: tuple[str, ...] = ()
    quota: Quota = Quota()
    blocked: bool = False
    metadata: dict[str, Any] = {}
    logging: tuple[Callback, ...] = ()
    policy: LoggingPolicy = _DEFAULT_POLICY
    created_at: float = 0.0
    updated_at: float = 0.0


class Key(msgspec.Struct, frozen=True):
    """A virtual key. ``hash`` is the SHA-256 of its text in hex; ``name`` shows its last four characters.

    ``models`` are names or patterns with ``*``; none means those of its team, and without a team all. ``expires``,
    ``created_at`` and ``updated_at`` are seconds since the epoch; ``expires`` 0 is never.
    """

    hash: str
    name: str = ""
    alias: str = ""
    user_id: str = ""
    user_email: str = ""
    team_id: str = ""
    models: tuple[str, ...] = ()
    quota: Quota = Quota()
    expires: float = 0.0
    blocked: bool = False
    metadata: dict[str, Any] = {}
    logging: tuple[Callback, ...] = ()
    policy: LoggingPolicy = _DEFAULT_POLICY
    created_at: float = 0.0
    updated_at: float = 0.0


def seconds(period: str) -> float:
    """Return a length of time such as ``30s``, ``15m``, ``12h``, ``7d`` or ``2w`` in seconds; a ``mo`` has 30 days.

    Raises:
        ValueError: it is none.
    """
    found = _PERIOD.fullmatch(period)
    if found is None or int(found[1]) == 0:
        raise ValueError("must be a length of time such as 60s, 15m, 12h, 30d or 1mo")
    return int(found[1]) * float(_UNITS.get(found[2], 30 * 86_400))


def period_end(period: str, start: float) -> float:
    """Return when a budget's period that begins at ``start`` ends, both in seconds since the epoch; 0 is never.

    A month ends on the same day of a later month (UTC), or on that month's last day.
    """
    if not period:
        return 0.0
    length = seconds(period)
    if not period.endswith("mo"):
        return start + length
    begun = datetime.fromtimestamp(start, UTC)
    month = begun.year * 12 + begun.month - 1 + int(period.removesuffix("mo"))
    year, month = month // 12, month % 12 + 1
    if year > MAXYEAR:
        return 0.0
    return begun.replace(year=year, month=month, day=min(begun.day, calendar.monthrange(year, month)[1])).timestamp()


def merged_policy(team: LoggingPolicy | None, key: LoggingPolicy) -> LoggingPolicy:
    """Return what holds for a key of a team: the stricter of both where either is strict, else what either grants."""
    if team is None or team == _DEFAULT_POLICY:
        return key
    contents = {team.content, key.content}
    destinations = key.destinations if team.destinations is None else team.destinations
    if team.destinations is not None and key.destinations is not None:
        destinations = tuple(name for name in key.destinations if name in team.destinations)
    return LoggingPolicy(
        content=False if False in contents else True if True in contents else None,
        enabled=team.enabled and key.enabled,
        destinations=destinations,
        may_relax=team.may_relax or key.may_relax,
    )
