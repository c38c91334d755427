"""Keys and teams of the config file: ``otelgw.keys``, ``otelgw.teams`` and LiteLLM's ``default_team_settings``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import msgspec

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.model import OtelgwSection
from otelgw.config.redaction import given, redaction
from otelgw.config.settings import Destination, Keys
from otelgw.config.vocabulary import GeneralSettings, LitellmSettings
from otelgw.keys.callbacks import option_of, options_of, row_of
from otelgw.keys.fields import IDENTIFIER, CallbackFields, KeySection, SubjectFields, policy
from otelgw.keys.hashing import SHORTEST, digest, display_name
from otelgw.keys.schema import Callback, Key, Quota, Team
from otelgw_exporters import options
from otelgw_exporters.catalog import Row
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["keys"]

_TEAM_CALLBACKS = {"success_callback": "success", "failure_callback": "failure", "callbacks": "success_and_failure"}
_REDIS = {"redis", "rediss", "unix"}


def keys(
    section: OtelgwSection,
    litellm: LitellmSettings,
    general: GeneralSettings,
    context: Context,
    *,
    master_key: str,
    sampling: str,
) -> Keys:
    """Return the keys and teams of the config file, and where others are kept; problems are reported."""
    salt_key = context.variable("OTELGW_SALT_KEY", "LITELLM_SALT_KEY")
    teams = tuple(
        Team(
            id=each.team_id,
            alias=each.team_alias or "",
            logging=_logging(each, ("otelgw", "teams", index), context),
            **_common(each, ("otelgw", "teams", index), context),
        )
        for index, each in enumerate(section.teams)
    )
    found = Keys(
        keys=tuple(
            made
            for index, each in enumerate(section.keys)
            if (made := _key(each, ("otelgw", "keys", index), context)) is not None
        ),
        teams=teams,
        team_logging=_team_logging(litellm.default_team_settings or [], context),
        database_url=_database_url(general, context),
        redis_url=_redis_url(section.auth.redis_url or "", context),
        salt_key=salt_key,
        template=Destination(
            "tenants",
            "tenants",
            sampling=sampling,
            redact_user_api_key_info=litellm.redact_user_api_key_info,
            redaction=redaction(given(section)),
        ),
        allow_networks=tuple(section.tenants.allow_networks),
        exporters=section.tenants.exporters,
        threads=section.tenants.threads,
    )
    _check(found, master_key, context)
    owners: tuple[Key | Team, ...] = (*found.keys, *found.teams, *found.team_logging)
    # Over HTTP they can be given to keys and teams where there is a way to encrypt their settings.
    tenants = bool(master_key) and (bool(salt_key) or any(each.logging for each in owners))
    return replace(found, tenants=tenants)


def _key(fields: KeySection, location: Location, context: Context) -> Key | None:
    if (fields.key is None) == (fields.key_sha256 is None):
        if fields.key is not None or "key" not in context.document.data["otelgw"]["keys"][location[-1]]:
            context.findings.error(location, "needs either `key` or `key_sha256`")
        return None  # a `key` whose variable is not set has been reported
    if fields.key is not None and (len(fields.key) < SHORTEST or not fields.key.isascii()):
        context.findings.error((*location, "key"), f"must have at least {SHORTEST} ASCII characters; a long random one")
        return None
    return Key(
        hash=digest(fields.key) if fields.key is not None else fields.key_sha256 or "",
        name=display_name(fields.key) if fields.key is not None else "",
        alias=fields.key_alias or "",
        user_id=fields.user_id or "",
        user_email=fields.user_email or "",
        team_id=fields.team_id or "",
        expires=fields.expires or 0.0,
        logging=_logging(fields, location, context),
        **_common(fields, location, context),
    )


def _common(fields: SubjectFields, location: Location, context: Context) -> dict[str, Any]:
    if fields.budget_duration and fields.max_budget is None:
        context.findings.error((*location, "budget_duration"), "needs a max_budget")
    metadata = fields.metadata or {}
    return {
        "models": tuple(fields.models or ()),
        "quota": Quota(fields.rpm_limit, fields.tpm_limit, fields.max_budget, fields.budget_duration or ""),
        "blocked": bool(fields.blocked),
        "metadata": {name: value for name, value in metadata.items() if name != "logging"},
        "policy": policy(fields.logging_policy),
    }


def _logging(fields: SubjectFields, location: Location, context: Context) -> tuple[Callback, ...]:
    entries = (fields.metadata or {}).get("logging") or []
    place = (*location, "metadata", "logging")
    if not isinstance(entries, list):
        context.findings.error(place, "must be a list of `callback_name`, `callback_type` and `callback_vars`")
        return ()
    found = []
    for index, entry in enumerate(entries):
        before = len(context.findings.errors)
        parsed = context.section(CallbackFields, entry, (*place, index))
        if len(context.findings.errors) == before:
            found.append(
                _callback(parsed.callback_name, parsed.callback_type, parsed.callback_vars, (*place, index), context)
            )
    return tuple(each for each in found if each is not None)


def _callback(
    name: str, event: str, variables: Mapping[str, Any], location: Location, context: Context
) -> Callback | None:
    """Return a destination with its options resolved, the operator's environment behind them."""
    try:
        row = row_of(name)
        chosen = options.complete(row, options_of(row, variables), context.environment)
    except DestinationConfigError as error:
        context.findings.error(location, str(error))
        return None
    return Callback(row.name, event, chosen)


def _team_logging(entries: list[dict[str, Any]], context: Context) -> tuple[Team, ...]:
    teams = []
    for index, entry in enumerate(entries):
        location: Location = ("litellm_settings", "default_team_settings", index)
        team_id = entry.get("team_id")
        if not isinstance(team_id, str) or not IDENTIFIER.fullmatch(team_id):
            context.findings.error(location, "needs a `team_id`: letters, digits and _ . : @ + -")
            continue
        wanted: list[tuple[Row, str]] = []
        for key, event in _TEAM_CALLBACKS.items():
            names = entry.get(key) or []
            for name in [names] if isinstance(names, str) else names:
                try:
                    wanted.append((row_of(str(name)), event))
                except DestinationConfigError as error:
                    context.findings.error((*location, key), str(error))
        teams.append(Team(team_id, logging=_team_callbacks(entry, wanted, location, context)))
    return tuple(teams)


def _team_callbacks(
    entry: Mapping[str, Any], wanted: list[tuple[Row, str]], location: Location, context: Context
) -> tuple[Callback, ...]:
    variables = {key: value for key, value in entry.items() if key not in _TEAM_CALLBACKS and key != "team_id"}
    for name in variables:
        if not any(option_of(row, name) for row, _ in wanted):
            context.findings.error((*location, name), "belongs to none of this team's callbacks")
    found = []
    for row, event in wanted:
        own = {name: value for name, value in variables.items() if option_of(row, name)}
        found.append(_callback(row.name, event, own, location, context))
    return _joined([each for each in found if each is not None])


def _joined(found: list[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks, one instead of two where the same is named for successes and for failures."""
    both = {each.name for each in found if sum(other.name == each.name for other in found) > 1}
    joined = {each.name: each for each in found}
    return tuple(
        msgspec.structs.replace(each, event="success_and_failure") if name in both else each
        for name, each in joined.items()
    )


def _database_url(general: GeneralSettings, context: Context) -> str:
    url = general.database_url or ""
    location: Location = ("general_settings", "database_url")
    if not url:
        return ""
    if not url.startswith(("postgresql://", "postgres://")):
        context.findings.error(location, "must be a URL that begins with postgresql://")
    elif find_spec("psycopg") is None:
        context.findings.error(location, "needs psycopg: pip install 'otelgw[postgres]'")
    return url


def _redis_url(url: str, context: Context) -> str:
    location: Location = ("otelgw", "auth", "redis_url")
    if not url:
        return ""
    if urlsplit(url).scheme not in _REDIS:
        context.findings.error(location, "must be a URL that begins with redis://, rediss:// or unix://")
    elif find_spec("redis") is None:
        context.findings.error(location, "needs the client: pip install 'otelgw[redis]'")
    return url


def _check(found: Keys, master_key: str, context: Context) -> None:
    """Report keys that cannot be what they are said to be."""
    findings = context.findings
    if (found.keys or found.teams) and not master_key:
        place = ("otelgw", "keys" if found.keys else "teams")
        findings.error(place, "needs general_settings.master_key: without one every key is accepted")
    if found.salt_key and find_spec("cryptography") is None:
        message = "OTELGW_SALT_KEY is set, and cryptography is missing: pip install 'otelgw[keys]'"
        findings.warn((), message, strict=False)
    _check_unique(found, master_key, context)
    teams = {team.id for team in (*found.teams, *found.team_logging)}
    for index, key in enumerate(found.keys):
        if key.team_id and key.team_id not in teams:
            findings.error(("otelgw", "keys", index, "team_id"), "there is no such team in otelgw.teams; add it")


def _check_unique(found: Keys, master_key: str, context: Context) -> None:
    hashes = {digest(master_key): "the master_key"} if master_key else {}
    aliases: dict[str, str] = {}
    for index, key in enumerate(found.keys):
        location, own = ("otelgw", "keys", index), f"otelgw.keys[{index}]"
        if key.hash in hashes:
            context.findings.error(location, f"is the same key as {hashes[key.hash]}")
        if key.alias and key.alias in aliases:
            context.findings.error((*location, "key_alias"), f"is the alias of {aliases[key.alias]}, too")
        hashes.setdefault(key.hash, own)
        aliases.setdefault(key.alias, own)
    seen = set[str]()
    for index, team in enumerate(found.teams):
        if team.id in seen:
            context.findings.error(("otelgw", "teams", index, "team_id"), "is another team's, too")
        seen.add(team.id)
