"""The rows of the catalogue by kind of destination, and what a row is. Strings only: a row imports no destination."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from otelgw_exporters.errors import DestinationConfigError

__all__ = ["OTLP_OPTIONS", "PROOFS", "SHAPE", "Option", "Row", "Wire", "meant", "otlp_variables"]

Kind = Literal["text", "url", "headers", "seconds", "count", "path", "flag", "choice", "names", "mapping"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a destination, by its name in the config and as a keyword of the exporter.

    ``env`` are the variables that give it where it is not set, the first that is set winning. ``bound`` options belong
    to the endpoint they were set with: they are not taken from the environment for an endpoint set elsewhere, so that
    one destination's credentials never reach another. Options of one ``group`` are one identity: if any of them is
    set, the environment gives none of the others. ``params`` are LiteLLM's names for it, in the mapping under the row's
    ``params_key`` or in ``litellm_settings`` itself. ``required``: without it the
    destination cannot be used, unless the option called ``unless`` is set.
    """

    name: str
    kind: Kind
    description: str
    default: Any = None
    env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    secret: bool = False
    bound: bool = False
    required: bool = False
    unless: str = ""
    params: tuple[str, ...] = ()
    group: str = ""


Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """How a vendor that takes OTLP over HTTP is spoken to: all that tells it from any other.

    ``{name}`` in a template is the option's value; a pair whose template has an option without a value is left out.
    ``basic:`` before a header's template makes it HTTP's Basic credentials.

    path
        after the endpoint, unless the endpoint ends with it, or with a beginning of it.
    others
        further paths at which the vendor's own exporter sends, for the reference; the usual one first.
    regions
        the endpoint of each value of the option ``region``; ``region_in`` names an option whose value tells the region.
    dialect
        the vendor's own attributes: a table in ``dialects``.
    parent
        ``keep``: the gateway's SERVER span keeps the caller's span as its parent. ``detach``: it becomes the root,
        where a parent that the vendor never gets would hide the trace or break it.
    resource, attributes
        further attributes of the resource, and of every span.
    spans
        ``all``, or ``generations``: what else a request has is not for this vendor.
    one_scope
        a request holds the spans of one resource and scope.
    trace
        where a trace can be read with the key that writes it, in the place of ``path``; ``{trace}`` is its id in hex.
    """

    path: str
    dialect: str
    others: tuple[str, ...] = ()
    headers: Pairs = ()
    regions: Pairs = ()
    region_in: str = ""
    parent: Literal["keep", "detach"] = "keep"
    resource: Pairs = ()
    attributes: Pairs = ()
    spans: Literal["all", "generations"] = "all"
    one_scope: bool = False
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One destination type. ``factory`` is ``module:class``; ``callbacks`` are LiteLLM's names for it.

    ``params_key`` is its key under LiteLLM's ``callback_settings``, ``header_prefix`` the prefix of request headers
    that are meant for it; empty where LiteLLM has none. ``proof`` is the strongest that its tests have, of ``PROOFS``;
    ``proof_of`` says what of it that proof is of, where it is not everything.

    ``loose_headers``: in the text form of its headers a comma separates only where ``name=`` follows. ``settings`` is
    an example of its options in a config, as YAML; empty where the options' own defaults make one.

    ``tenant``: a key or a team of a gateway may have one of its own. Its credentials are all in its options, it
    connects by this room's HTTP clients or by ``confinement`` only, and it writes no files.
    """

    name: str
    factory: str
    description: str
    options: tuple[Option, ...]
    callbacks: tuple[str, ...] = ()
    params_key: str = ""
    header_prefix: str = ""
    proof: str = ""
    proof_of: str = ""
    wire: Wire | None = None
    loose_headers: bool = False
    settings: str = ""
    tenant: bool = False

    @property
    def env(self) -> Mapping[str, tuple[str, ...]]:
        """The environment variables of each option that has any."""
        return {option.name: option.env for option in self.options if option.env}

    def option(self, name: str) -> Option:
        """Return the option called ``name``.

        Raises:
            DestinationConfigError: there is none; says which name was probably meant.
        """
        for option in self.options:
            if option.name == name:
                return option
        names = [option.name for option in self.options]
        raise DestinationConfigError(f"{self.name} has no option {name!r}{meant(name, names)}")


def meant(name: str, names: list[str]) -> str:
    """Return the end of an error message: which of ``names`` was probably meant, or nothing."""
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def otlp_variables(name: str, *litellm: str) -> tuple[str, ...]:
    """Return OpenTelemetry's variables called ``name``, the narrower one first, then LiteLLM's."""
    return (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}", *litellm)


PROOFS: Mapping[str, str] = {
    "server": "the real thing (server, file, code): sent there and read back",
    "validator": "the vendor's own validator or agent takes what is sent",
    "sdk": "the vendor's SDK was captured, and what is sent is held against it",
    "contract": "what is sent is held against the vendor's published schema",
    "documentation": "the vendor's documentation and source only",
}
"""What a destination's ``proof`` means, the strongest first."""

SHAPE = (
    Option(
        "semconv",
        "choice",
        "vocabulary of the attributes",
        "otel",
        choices=("otel", "otel-1.41", "otel-1.36", "openinference", "traceloop"),
    ),
    Option(
        "form",
        "choice",
        "how messages and tool definitions leave: as JSON text or as structured attributes",
        "json_string",
        choices=("json_string", "structured"),
    ),
    Option(
        "bodies",
        "flag",
        "send the captured request and answer too, as JSON text: otelgw.request.body, otelgw.response.body",
        False,
    ),
)

OTLP_OPTIONS = (
    Option(
        "headers",
        "headers",
        "sent with every request; in variables: name=value,name=value, URL-encoded",
        env=otlp_variables("HEADERS", "OTEL_HEADERS"),
        secret=True,
        bound=True,
    ),
    Option(
        "timeout",
        "seconds",
        "for one delivery; in variables: milliseconds (below 100: seconds)",
        10.0,
        env=otlp_variables("TIMEOUT"),
    ),
    Option("compression", "choice", "of requests", "none", env=otlp_variables("COMPRESSION"), choices=("none", "gzip")),
    Option("certificate", "path", "PEM file with the roots to trust", env=otlp_variables("CERTIFICATE"), bound=True),
    Option("client_key", "path", "PEM file with the client's key", env=otlp_variables("CLIENT_KEY"), bound=True),
    Option(
        "client_certificate",
        "path",
        "PEM file with the client's certificate chain",
        env=otlp_variables("CLIENT_CERTIFICATE"),
        bound=True,
    ),
    Option("max_request_bytes", "count", "spans are split over requests of at most this size", 4_000_000),
    *SHAPE,
)
