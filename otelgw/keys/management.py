"""What can be done to keys and teams over HTTP, apart from HTTP: LiteLLM's bodies in, LiteLLM's answers out. Blocks."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from otelgw.config.findings import did_you_mean
from otelgw.config.section import Section
from otelgw.config.settings import Keys
from otelgw.errors import RequestRefused
from otelgw.keys import callbacks, fields, hashing
from otelgw.keys.directory import Directory
from otelgw.keys.rendering import HIDDEN, callback_summary, key_object, team_object
from otelgw.keys.schema import Callback, Key, Quota, Team, seconds
from otelgw.keys.sealing import Sealer
from otelgw.keys.store import key_subject, team_subject

__all__ = ["Management"]

_F = TypeVar("_F", bound=Section)
_S = TypeVar("_S", Key, Team)
_Document = dict[str, Any]

# LiteLLM's fields that this gateway has no use for. With a value some would limit what a key may do, and a key that may
# do more than was asked for must not be handed out.
_UNAVAILABLE = frozenset(
    """
    access_group_ids agent_id aliases allowed_cache_controls allowed_passthrough_routes allowed_routes
    allowed_vector_store_indexes auto_rotate budget_id config disable_global_guardrails enforced_params guardrails
    key_type litellm_budget_table max_parallel_requests members members_with_roles model_aliases model_max_budget
    model_rpm_limit model_tpm_limit object_permission organization_id permissions policies prompts rotation_interval
    router_settings rpm_limit_type secret_manager_settings send_invite_email service_account_id soft_budget tags
    team_member_budget team_member_key_duration team_member_permissions team_member_rpm_limit team_member_tpm_limit
    temp_budget_expiry temp_budget_increase tpm_limit_type allow_team_guardrail_config admins
    """.split()  # noqa: SIM905 - quotes around each would hide the names
)
_QUOTA = {"rpm_limit": "rpm", "tpm_limit": "tpm", "max_budget": "budget", "budget_duration": "period"}
_PLAIN = {
    "models": "models",
    "blocked": "blocked",
    "key_alias": "alias",
    "team_alias": "alias",
    "user_id": "user_id",
    "user_email": "user_email",
    "team_id": "team_id",
}
_MOST_CALLBACKS = 10
_METADATA = 64 * 1024  # bytes of JSON
_PAGE, _LARGEST_PAGE = 10, 1000


class Management:
    """Every method raises ``RequestRefused`` (400, 404) for what cannot be done, and the errors of the store, of
    sealing and of destinations."""

    def __init__(self, directory: Directory, settings: Keys, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._store = directory.store
        self._settings = settings
        self._sealer = Sealer(settings.salt_key)
        self._clock = clock

    def generate_key(self, body: _Document) -> _Document:
        given = _parsed(fields.GenerateKey, body)
        text = given.key or hashing.new_key()
        if len(text) < hashing.SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
            raise _refused(
                "key",
                f"must have at least {hashing.SHORTEST} printable ASCII characters; leave it out to have one made",
            )
        now = self._clock()
        key_hash = hashing.digest(text)
        if key_hash in self._directory.keys:
            raise _refused("key", "is in the config file already")
        key = Key(key_hash, hashing.display_name(text), created_at=now, updated_at=now)
        key = self._applied(key, given, key_subject(key_hash))
        self._check_team(key)
        self._store.add_key(key)
        return {"key": text, **key_object(key, {}, self._sealer), "token_id": key_hash}

    def update_key(self, body: _Document) -> _Document:
        given = _parsed(fields.UpdateKey, body)
        key_hash = self._hash(given.key)

        def change(key: Key) -> Key:
            return msgspec.structs.replace(self._applied(key, given, key_subject(key_hash)), updated_at=self._clock())

        if given.team_id:
            self._check_team(Key(key_hash, team_id=given.team_id))
        changed = self._store.change_key(key_hash, change)
        if changed is None:
            raise _unknown("key")
        return {"key": key_hash, **self._key_object(changed)}

    def delete_keys(self, body: _Document) -> _Document:
        given = _parsed(fields.DeleteKeys, body)
        hashes = [self._hash(each) for each in given.keys or ()]
        for alias in given.key_aliases or ():
            found = self._store.hash_of_alias(alias)
            if not found:
                raise _unknown("key_alias")
            hashes.append(found)
        if not hashes:
            raise _refused("keys", "is missing: a list of keys or of their hashes, or `key_aliases`")
        gone = self._store.delete_keys(hashes)
        if not gone:
            raise _unknown("key")
        return {"deleted_keys": gone}

    def key_info(self, query: Mapping[str, str]) -> _Document:
        text = query.get("key", "")
        if not text:
            raise _refused("key", "is missing in the query: the key or its hash")
        key_hash = text if hashing.is_digest(text) else hashing.digest(text)
        found = self._directory.find(key_hash)
        if found is None:
            raise _unknown("key")
        return {"key": key_hash, "info": key_object(found.key, found.spent, self._sealer)}

    def list_keys(self, query: Mapping[str, str]) -> _Document:
        page = _number(query, "page", 1, 10**6)
        size = _number(query, "size", _PAGE, _LARGEST_PAGE)
        columns = {"key_alias": "alias", "user_id": "user_id", "team_id": "team_id", "key_hash": "hash"}
        wanted = {column: query[name] for name, column in columns.items() if query.get(name)}
        keys, total = self._store.keys(wanted, limit=size, offset=(page - 1) * size)
        whole = query.get("return_full_object", "").lower() == "true"
        return {
            "keys": [self._key_object(key) if whole else key.hash for key in keys],
            "total_count": total,
            "current_page": page,
            "total_pages": math.ceil(total / size),
        }

    def new_team(self, body: _Document) -> _Document:
        given = _parsed(fields.NewTeam, body)
        team_id = given.team_id or str(uuid.uuid4())
        if team_id in self._directory.teams:
            raise _refused("team_id", "is in the config file already")
        now = self._clock()
        team = self._applied(Team(team_id, created_at=now, updated_at=now), given, team_subject(team_id))
        self._store.add_team(team)
        return team_object(team, {}, self._sealer)

    def update_team(self, body: _Document) -> _Document:
        given = _parsed(fields.UpdateTeam, body)
        team_id = given.team_id

        def change(team: Team) -> Team:
            return msgspec.structs.replace(self._applied(team, given, team_subject(team_id)), updated_at=self._clock())

        changed = self._change_team(team_id, change)
        return {"team_id": team_id, "data": self._team_object(changed)}

    def delete_teams(self, body: _Document) -> _Document:
        given = _parsed(fields.DeleteTeams, body)
        for team_id in given.team_ids:
            self._not_of_the_file(team_id)
        gone = {team_id: self._store.delete_team(team_id) for team_id in given.team_ids}
        if all(keys is None for keys in gone.values()):
            raise _unknown("team")
        return {
            "deleted_teams": [team_id for team_id, keys in gone.items() if keys is not None],
            "deleted_keys": [key_hash for keys in gone.values() for key_hash in keys or ()],
        }

    def team_info(self, query: Mapping[str, str]) -> _Document:
        team = self._team(query.get("team_id", ""))
        keys, _ = self._store.keys({"team_id": team.id}, limit=_LARGEST_PAGE)
        own = [key for key in self._directory.keys.values() if key.team_id == team.id]
        return {
            "team_id": team.id,
            "team_info": self._team_object(team),
            "keys": [self._key_object(key) for key in (*own, *keys)],
            "team_memberships": [],
        }

    def list_teams(self, query: Mapping[str, str]) -> list[_Document]:  # noqa: ARG002 - as the others
        own = [self._directory.team(team_id) for team_id in self._directory.teams]
        return [self._team_object(team) for team in (*own, *self._store.teams()) if team is not None]

    def add_callback(self, team_id: str, body: _Document) -> _Document:
        given = _parsed(fields.CallbackFields, body)
        callback = self._sealed(given.callback(), team_subject(team_id))

        def change(team: Team) -> Team:
            if not team.policy.enabled:
                mend = 'turn it on with /team/update and {"logging_policy": {"enabled": true}}'
                raise _refused("team_id", f"logging is off for this team; {mend}")
            kept = [each for each in team.logging if (each.name, each.event) != (callback.name, callback.event)]
            if len(kept) >= _MOST_CALLBACKS:
                raise _refused("callback_name", f"a team may have {_MOST_CALLBACKS} destinations")
            return msgspec.structs.replace(team, logging=(*kept, callback), updated_at=self._clock())

        changed = self._change_team(team_id, change)
        return {"status": "success", "data": self._team_object(changed)}

    def callbacks(self, team_id: str) -> _Document:
        return {"status": "success", "data": callback_summary(self._team(team_id), self._sealer)}

    def disable_logging(self, team_id: str) -> _Document:
        def change(team: Team) -> Team:
            off = msgspec.structs.replace(team, logging=(), updated_at=self._clock())
            return msgspec.structs.replace(off, policy=replace(team.policy, enabled=False))

        changed = self._change_team(team_id, change)
        return {
            "status": "success",
            "message": f"Logging disabled for team {team_id}",
            "data": callback_summary(changed, self._sealer),
        }

    def _change_team(self, team_id: str, change: Callable[[Team], Team]) -> Team:
        self._not_of_the_file(team_id)
        changed = self._store.change_team(team_id, change) if self._store.exists() else None
        if changed is None:
            raise _unknown("team")
        return changed

    def _applied(self, subject: _S, given: fields.SubjectFields, owner: str) -> _S:
        """Return a key or team with the fields that were given; null takes a field back to what it is without one."""
        empty: Any = Key("") if isinstance(subject, Key) else Team("")
        changes: dict[str, Any] = {}
        quota: dict[str, Any] = {}
        for name in given.model_fields_set:
            value = getattr(given, name)
            if name in _QUOTA:
                quota[_QUOTA[name]] = getattr(empty.quota, _QUOTA[name]) if value is None else value
            elif name in _PLAIN and (name != "team_id" or isinstance(subject, Key)):
                default = getattr(empty, _PLAIN[name])
                changes[_PLAIN[name]] = default if value is None else tuple(value) if name == "models" else value
        if quota:
            changes["quota"] = msgspec.structs.replace(subject.quota, **quota)
            _check_quota(changes["quota"])
        if "metadata" in given.model_fields_set:
            changes |= self._metadata(given.metadata or {}, owner)
        if "logging_policy" in given.model_fields_set:
            changes["policy"] = fields.policy(given.logging_policy)
        if isinstance(given, fields.GenerateKey):
            changes |= self._expiry(given)
        return msgspec.structs.replace(subject, **changes)

    def _expiry(self, given: fields.GenerateKey) -> dict[str, float]:
        if given.duration is not None:
            return {"expires": self._clock() + seconds(given.duration)}
        if given.model_fields_set & {"duration", "expires"}:
            return {"expires": given.expires or 0.0}
        return {}

    def _metadata(self, metadata: _Document, owner: str) -> dict[str, Any]:
        """Return metadata without its ``logging``, and the destinations in that if it is there."""
        rest = {name: value for name, value in metadata.items() if name != "logging"}
        try:
            size = len(msgspec.json.encode(rest))
        except (ValueError, TypeError, RecursionError):
            size = _METADATA + 1
        if size > _METADATA:
            raise _refused("metadata", f"is too large: at most {_METADATA // 1024} KiB")
        if "logging" not in metadata:
            return {"metadata": rest}
        entries = metadata["logging"] or []
        if not isinstance(entries, list) or len(entries) > _MOST_CALLBACKS:
            raise _refused("metadata.logging", f"must be a list of at most {_MOST_CALLBACKS} destinations")
        found = [
            self._sealed(_parsed(fields.CallbackFields, entry, f"metadata.logging.{index}").callback(), owner)
            for index, entry in enumerate(entries)
        ]
        return {"metadata": rest, "logging": tuple(found)}

    def _sealed(self, callback: Callback, owner: str) -> Callback:
        for name, value in callback.variables.items():
            if value == HIDDEN:
                raise _refused(name, "is what stands for a value that is not shown; send the value itself")
        callbacks.check(callback, self._settings)
        sealed = self._sealer.seal(callback.variables, owner) if callback.variables else ""
        return msgspec.structs.replace(callback, variables={}, sealed=sealed, confined=True)

    def _check_team(self, key: Key) -> None:
        if key.team_id and self._directory.team(key.team_id) is None:
            raise _refused("team_id", "there is no such team; make it with /team/new first")

    def _hash(self, text: str) -> str:
        key_hash = text if hashing.is_digest(text) else hashing.digest(text)
        if key_hash in self._directory.keys:
            raise _refused("key", "comes from the config file; change it there")
        return key_hash

    def _not_of_the_file(self, team_id: str) -> None:
        if team_id in self._directory.teams:
            raise _refused("team_id", "comes from the config file; change it there")

    def _team(self, team_id: str) -> Team:
        team = self._directory.team(team_id) if team_id else None
        if team is None:
            raise _unknown("team")
        return team

    def _key_object(self, key: Key) -> _Document:
        return key_object(key, self._store.spent([key_subject(key.hash)]), self._sealer)

    def _team_object(self, team: Team) -> _Document:
        return team_object(team, self._store.spent([team_subject(team.id)]), self._sealer)


def _check_quota(quota: Quota) -> None:
    if quota.period and quota.budget is None:
        raise _refused("budget_duration", "needs a max_budget")


def _parsed(model: type[_F], body: Any, where: str = "") -> _F:
    if not isinstance(body, dict):
        raise _refused(where, "must be a JSON object")
    meant = sorted(name for name in _UNAVAILABLE.intersection(body) if _says_something(body[name]))
    if meant:
        raise _refused(meant[0], "is not available in this version; leave it out")
    try:
        return model.model_validate({name: value for name, value in body.items() if name not in _UNAVAILABLE})
    except ValidationError as error:
        raise _invalid(error, where, model) from None


def _says_something(value: Any) -> bool:
    return value is not None and value is not False and value != [] and value != {}


def _invalid(error: ValidationError, where: str, model: type[Section]) -> RequestRefused:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join([part for part in (where,) if part] + [str(part) for part in problem["loc"]])
    if problem["type"] == "extra_forbidden":
        return _refused(path, f"is not known{did_you_mean(str(problem['loc'][-1]), model.every_key())}")
    if problem["type"] == "missing":
        return _refused(path, "is missing")
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return _refused(path, message)


def _refused(param: str, message: str) -> RequestRefused:
    return RequestRefused("invalid_request", f"{param[:200]}: {message}.", param=param[:200] or None)


def _unknown(what: str) -> RequestRefused:
    return RequestRefused("not_found", f"There is no such {what}.", param=what)


def _number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text[:12]) <= most:
        raise _refused(name, f"must be a number from 1 to {most}")
    return int(text)
