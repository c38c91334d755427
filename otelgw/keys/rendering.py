"""Keys and teams in answers: LiteLLM's field names, and never a key, a credential or a sealed text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from otelgw.config.settings import LoggingPolicy
from otelgw.keys.callbacks import row_of, secret_names
from otelgw.keys.schema import Callback, Key, Quota, Team
from otelgw.keys.sealing import Sealer, SealError
from otelgw.keys.store import Spend
from otelgw_exporters.errors import DestinationError

__all__ = ["HIDDEN", "callback_summary", "key_object", "team_object"]

HIDDEN = "***REDACTED***"
"""What stands for a value that is not shown; LiteLLM's word."""

_UNREADABLE = "***UNREADABLE***"


def key_object(key: Key, spent: Mapping[str, Spend], sealer: Sealer) -> dict[str, Any]:
    """Return a key as ``/key/info`` shows it."""
    return {
        "token": key.hash,
        "key_name": key.name or None,
        "key_alias": key.alias or None,
        "user_id": key.user_id or None,
        "user_email": key.user_email or None,
        "team_id": key.team_id or None,
        "expires": _moment(key.expires),
        **_common(key.models, key.quota, key.metadata, key.logging, f"key:{key.hash}", spent, sealer),
        "blocked": key.blocked,
        "logging_policy": _policy(key.policy),
        "created_at": _moment(key.created_at),
        "updated_at": _moment(key.updated_at),
    }


def team_object(team: Team, spent: Mapping[str, Spend], sealer: Sealer) -> dict[str, Any]:
    """Return a team as ``/team/info`` shows it."""
    return {
        "team_id": team.id,
        "team_alias": team.alias or None,
        **_common(team.models, team.quota, team.metadata, team.logging, f"team:{team.id}", spent, sealer),
        "blocked": team.blocked,
        "logging_policy": _policy(team.policy),
        "created_at": _moment(team.created_at),
        "updated_at": _moment(team.updated_at),
    }


def callback_summary(team: Team, sealer: Sealer) -> dict[str, Any]:
    """Return a team's destinations as ``GET /team/{id}/callback`` shows them."""
    variables: dict[str, Any] = {}
    for callback in team.logging:
        variables |= _variables(callback, f"team:{team.id}", sealer)
    return {
        "team_id": team.id,
        "success_callbacks": [each.name for each in team.logging if each.event != "failure"],
        "failure_callbacks": [each.name for each in team.logging if each.event != "success"],
        "callback_vars": variables,
        "logging_enabled": team.policy.enabled,
    }


def _common(
    models: tuple[str, ...],
    quota: Quota,
    metadata: dict[str, Any],
    logging: tuple[Callback, ...],
    owner: str,
    spent: Mapping[str, Spend],
    sealer: Sealer,
) -> dict[str, Any]:
    spend = spent.get(owner, Spend()) if quota.budget is not None else None
    shown = dict(metadata)
    if logging:
        shown["logging"] = [
            {
                "callback_name": each.name,
                "callback_type": each.event,
                "callback_vars": _variables(each, owner, sealer),
            }
            for each in logging
        ]
    return {
        "models": list(models),
        "rpm_limit": quota.rpm,
        "tpm_limit": quota.tpm,
        "max_budget": quota.budget,
        "budget_duration": quota.period or None,
        "spend": None if spend is None else spend.amount,
        "budget_reset_at": None if spend is None else _moment(spend.resets_at),
        "metadata": shown,
    }


def _variables(callback: Callback, owner: str, sealer: Sealer) -> dict[str, Any]:
    """Return a destination's settings without its secrets."""
    variables = callback.variables
    if callback.sealed:
        try:
            variables = sealer.open(callback.sealed, owner)
        except SealError:
            return {"": _UNREADABLE}
    try:
        secret = secret_names(row_of(callback.name))
    except DestinationError:
        return dict.fromkeys(variables, HIDDEN)
    return {
        name: HIDDEN if name.lower() in secret or _has_credentials(value) else value
        for name, value in variables.items()
    }


def _has_credentials(value: Any) -> bool:
    return isinstance(value, str) and "@" in value.partition("://")[2].partition("/")[0]


def _policy(policy: LoggingPolicy) -> dict[str, Any]:
    return asdict(policy)


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
