"""Keys and teams as they are written down, in the config file and in LiteLLM's bodies over HTTP."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from otelgw.config.section import Names, Section, names_list, one_or_more
from otelgw.config.settings import Keys, LoggingPolicy
from otelgw.keys.schema import Callback, seconds

__all__ = [
    "IDENTIFIER",
    "CallbackFields",
    "DeleteKeys",
    "DeleteTeams",
    "GenerateKey",
    "KeyFields",
    "KeySection",
    "NewTeam",
    "PolicyFields",
    "SubjectFields",
    "TeamFields",
    "TeamSection",
    "TenantsSection",
    "UpdateKey",
    "UpdateTeam",
    "policy",
]

_KEYS = Keys()
IDENTIFIER = re.compile(r"[A-Za-z0-9_.:@+\-]+")


def _period(value: str) -> str:
    seconds(value)
    return value


def _identifier(value: str) -> str:
    if not IDENTIFIER.fullmatch(value):
        raise ValueError("may have letters, digits and _ . : @ + -")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be printable")
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _moment(value: Any) -> Any:
    """Read a moment as ISO 8601; without a zone it is UTC."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date and time such as 2027-01-31T12:00:00Z") from None
    else:
        return value
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=256), AfterValidator(_printable)]
Identifier = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), AfterValidator(_identifier)
]
Network = Annotated[str, AfterValidator(_network)]
Period = Annotated[str, AfterValidator(_period)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=1e12)]
Moment = Annotated[float, Field(ge=0, le=1e11), BeforeValidator(_moment, json_schema_input_type=str)]


class PolicyFields(Section):
    """What is recorded of the requests of a key or team. Where both say something, the stricter counts."""

    content: bool | None = Field(
        default=None,
        description="`false` withholds prompts and answers; `true` has them recorded where the config does not.",
    )
    enabled: bool = Field(default=True, description="`false` turns logging off altogether.")
    destinations: Names | None = Field(
        default=None,
        description="The only global destinations that get them; an empty list is none, so that those of its own are "
        "instead of the global ones.",
    )
    may_relax: bool = Field(
        default=False, description="Whether a request may ask for more to be recorded than the config does."
    )


class CallbackFields(Section):
    """A destination of a key's or team's own."""

    callback_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)] = Field(
        description="LiteLLM's callback name or a destination's type."
    )
    callback_type: Literal["success", "failure", "success_and_failure"] = Field(
        default="success_and_failure", description="Which requests are sent there."
    )
    callback_vars: dict[str, str | bool | float] = Field(
        default_factory=dict, description="Its settings: the variables' names in lower case, or the options' names."
    )

    def callback(self) -> Callback:
        return Callback(self.callback_name, self.callback_type, dict(self.callback_vars))


class SubjectFields(Section):
    """What keys and teams have in common."""

    models: Names | None = Field(
        default=None, description="Models that may be called, `*` stands for anything; without any, all."
    )
    rpm_limit: Count | None = Field(default=None, description="Requests a minute.")
    tpm_limit: Count | None = Field(default=None, description="Tokens a minute.")
    max_budget: Amount | None = Field(default=None, description="USD that may be spent, in each `budget_duration`.")
    budget_duration: Period | None = Field(
        default=None, description="`60s`, `15m`, `12h`, `30d`, `1mo` …; without it the budget is never renewed."
    )
    blocked: bool | None = Field(default=None, description="`true` refuses every request.")
    metadata: dict[str, Any] | None = Field(
        default=None,
        description="Anything; its `logging` is a list of destinations of its own, as in LiteLLM: `callback_name`, "
        "`callback_type`, `callback_vars`.",
    )
    logging_policy: PolicyFields | None = Field(default=None, description="otelgw's: what is recorded.")


class KeyFields(SubjectFields):
    """A virtual key."""

    key_alias: Text | None = Field(default=None, description="A name for it, which no other key has.")
    user_id: Text | None = Field(default=None, description="Whose it is.")
    user_email: Text | None = Field(default=None, description="Their e-mail address.")
    team_id: Identifier | None = Field(default=None, description="The team that it belongs to.")


class GenerateKey(KeyFields):
    """``POST /key/generate``."""

    key: Annotated[str, StringConstraints(max_length=512)] | None = Field(default=None)
    duration: Period | None = Field(default=None)
    expires: Moment | None = Field(default=None)


class UpdateKey(GenerateKey):
    """``POST /key/update``. ``key`` is the key or its hash; only what is given is changed, ``null`` clears it."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field()


class KeySection(KeyFields):
    """A virtual key of the config file; it cannot be changed over HTTP. Needs a `master_key`."""

    key: Annotated[str, StringConstraints(strip_whitespace=True, max_length=512)] | None = Field(
        default=None, description="The key itself, at least 20 characters; better as `os.environ/NAME`."
    )
    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Instead of `key`: its SHA-256 in hex, as `/key/generate` shows it as `token`."
    )
    expires: Moment | None = Field(default=None, description="ISO 8601; without it, never.")


class DeleteKeys(Section):
    """``POST /key/delete``."""

    keys: list[str] | None = Field(default=None, max_length=1000)
    key_aliases: list[str] | None = Field(default=None, max_length=1000)


class TeamFields(SubjectFields):
    """A team of keys; its limits are those of all its keys together."""

    team_alias: Text | None = Field(default=None, description="A name for it.")


class TeamSection(TeamFields):
    """A team of the config file; it cannot be changed over HTTP."""

    team_id: Identifier = Field(description="The id by which keys name it.")


class TenantsSection(Section):
    """Bounds for destinations that keys and teams have of their own."""

    allow_networks: Annotated[list[Network], BeforeValidator(names_list), one_or_more()] = Field(
        default_factory=list,
        description="Networks (CIDR) that those set over HTTP may be in, besides public addresses: `10.0.0.0/8`.",
    )
    exporters: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=_KEYS.exporters, description="How many are kept open at once."
    )
    threads: Annotated[int, Field(ge=3, le=256)] = Field(
        default=_KEYS.threads, description="Threads that deliver to them."
    )


class NewTeam(TeamFields):
    """``POST /team/new``."""

    team_id: Identifier | None = Field(default=None)


class UpdateTeam(TeamFields):
    """``POST /team/update``."""

    team_id: Identifier = Field()


class DeleteTeams(Section):
    """``POST /team/delete``."""

    team_ids: list[str] = Field(max_length=1000)


def policy(fields: PolicyFields | None) -> LoggingPolicy:
    """Return a policy as it was written down."""
    if fields is None:
        return LoggingPolicy()
    destinations = None if fields.destinations is None else tuple(fields.destinations)
    return LoggingPolicy(fields.content, fields.enabled, destinations, fields.may_relax)
