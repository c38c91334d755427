"""What a key lets its holder do: the key and its team taken together, with what a request needs of them prepared."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from otelgw.config.settings import LoggingPolicy
from otelgw.errors import RequestRefused
from otelgw.keys.schema import Callback, Key, Team, merged_policy
from otelgw.keys.store import key_subject, team_subject
from otelgw.keys.table import Subject
from otelgw.tracing.record import Caller

__all__ = ["Grant", "grant"]

RawHeaders = tuple[tuple[bytes, bytes], ...]

_EVERY = frozenset({"*", "all-proxy-models"})
_TEAMS = "all-team-models"


class Grant(NamedTuple):
    """``models`` are lists of patterns, each of which has to let a model through.

    ``subjects`` are what is limited: the key, its team, both or neither. ``headers`` say the key's limits.
    ``logging`` are the destinations of its own, and ``owner`` is whose they are.
    """

    key: Key
    team: Team | None
    caller: Caller
    models: tuple[tuple[str, ...], ...]
    policy: LoggingPolicy
    subjects: tuple[Subject, ...]
    headers: RawHeaders
    logging: tuple[Callback, ...]
    owner: str

    @property
    def rated(self) -> tuple[Subject, ...]:
        """Those of ``subjects`` that have a rate."""
        return tuple(each for each in self.subjects if each.quota.rpm is not None or each.quota.tpm is not None)

    @property
    def charged(self) -> bool:
        """True if what a request uses has to be known."""
        return any(each.quota.tpm is not None or each.quota.budget is not None for each in self.subjects)

    def check(self, now: float) -> None:
        """Let a key pass that may be used at all.

        Raises:
            RequestRefused: 401: it is expired or blocked, or its team is.
        """
        if self.key.blocked:
            raise RequestRefused("unauthorized", "The key is blocked.")
        if self.key.expires and now >= self.key.expires:
            raise RequestRefused("unauthorized", "The key has expired.")
        if self.team is None and self.key.team_id:
            raise RequestRefused("unauthorized", "The key's team does not exist any more.")
        if self.team is not None and self.team.blocked:
            raise RequestRefused("unauthorized", "The key's team is blocked.")

    def allows(self, model: str) -> bool:
        """Say whether ``model`` (the name that callers use) may be called."""
        return all(any(fnmatchcase(model, pattern) for pattern in patterns) for patterns in self.models)

    def check_model(self, model: str, route: str) -> None:
        """Let a call of ``route`` pass that the key may make; ``model`` is empty for one that names none.

        Such a call could be of any model, could cost anything and could be about somebody else's answer, so a key that
        is limited to models or has a budget does not make it.

        Raises:
            RequestRefused: 403 forbidden.
        """
        if model:
            if not self.allows(model):
                raise RequestRefused("forbidden", f"The key does not allow model {model[:200]!r}.", param="model")
            return
        limited = "is limited to some models" if self.models else "has a budget" if self._budgeted else ""
        if limited:
            what = f"{route} without a model, as it {limited}; name one in the body, or in the query: ?model=…"
            raise RequestRefused("forbidden", f"The key does not allow {what}")

    @property
    def _budgeted(self) -> bool:
        return any(each.quota.budget is not None for each in self.subjects)


def grant(key: Key, team: Team | None) -> Grant:
    """Return what a key of a team allows."""
    subjects = [Subject(key_subject(key.hash), key.quota)]
    logging, owner = key.logging, subjects[0].name
    if team is not None:
        subjects.append(Subject(team_subject(team.id), team.quota))
        if not logging:
            logging, owner = team.logging, subjects[1].name
    return Grant(
        key=key,
        team=team,
        caller=Caller(
            authenticated=True,
            key_hash=key.hash,
            key_alias=key.alias,
            user_id=key.user_id,
            user_email=key.user_email,
            team_id=team.id if team is not None else key.team_id,
            team_alias=team.alias if team is not None else "",
        ),
        models=tuple(filter(None, (_patterns(key.models), _patterns(team.models if team is not None else ())))),
        policy=merged_policy(team.policy if team is not None else None, key.policy),
        subjects=tuple(subject for subject in subjects if subject.quota.limits),
        headers=_headers(key),
        logging=logging,
        owner=owner,
    )


def _patterns(models: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns of a list of models; none where it lets everything through."""
    return () if _TEAMS in models or not _EVERY.isdisjoint(models) else models


def _headers(key: Key) -> RawHeaders:
    quota = key.quota
    return tuple(
        (prefix + name, b"None" if value is None else b"%d" % value)
        for name, value in ((b"key-tpm-limit", quota.tpm), (b"key-rpm-limit", quota.rpm))
        for prefix in (b"x-litellm-", b"x-otelgw-")
    )
