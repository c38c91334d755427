"""Tags that the gateway adds for a destination that asks for them, as ``key:value``: LiteLLM's ``…_default_tags``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from otelgw.tracing.record import Caller

__all__ = ["BASE_URL", "KNOWN", "default_tags"]

BASE_URL = "proxy_base_url"

_OF_CALLER: Mapping[str, Callable[[Caller], str]] = {
    "user_api_key_alias": lambda caller: caller.key_alias,
    "user_api_key_user_id": lambda caller: caller.user_id,
    "user_api_key_user_email": lambda caller: caller.user_email,
    "user_api_key_team_alias": lambda caller: caller.team_alias,
}
# Nothing is cached here, so there is never a hit and never a key.
_FIXED = {"cache_hit": "false", "cache_key": ""}
KNOWN = frozenset({*_FIXED, *_OF_CALLER, BASE_URL})


def default_tags(names: Iterable[str], caller: Caller, base_url: str, *, anonymous: bool) -> tuple[str, ...]:
    """Return the tags called ``names``, each once; one without a value is left out, of ``anonymous`` all that say who
    called."""
    found: list[str] = []
    for name in dict.fromkeys(names):
        value = base_url if name == BASE_URL else _FIXED.get(name, "")
        if name in _OF_CALLER and not anonymous:
            value = _OF_CALLER[name](caller)
        if value:
            found.append(f"{name}:{value}")
    return tuple(found)
