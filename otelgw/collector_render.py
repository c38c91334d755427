"""``otelgw collector render``: an OpenTelemetry Collector's config for the user's own destinations, with comments.

Secrets never come into it: where one is needed stands ``${env:NAME}``, which the Collector fills in when it starts.
collector/recipes holds what is printed without a config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from otelgw.config.settings import Destination, Settings
from otelgw.errors import ConfigError
from otelgw_exporters import catalog
from otelgw_exporters.rows.collector import PIPELINE, TARGETS, Target

__all__ = ["TARGETS", "render"]

_OTLP = {"otlp_grpc": "grpc", "otlp_http": "http"}
_PORTS = {"grpc": 4317, "http": 4318}
_LOOPBACK = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True)
class _Listener:
    """Where one of the receiver's two protocols listens."""

    endpoint: str
    tls: bool = False


@dataclass(slots=True)
class _Found:
    """What the user's config says about the Collector's two sides."""

    listeners: dict[str, _Listener] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def render(settings: Settings | None, name: str) -> str:
    """Return the config of a Collector that takes what ``settings`` sends and passes it on to the backend ``name``.

    Raises:
        ConfigError: there is no such backend.
    """
    if name not in TARGETS:
        raise ConfigError([f"--to: {name!r} is not one of {', '.join(TARGETS)}"])
    target = TARGETS[name]
    found = _Found(values=dict(target.defaults))
    for destination in settings.destinations if settings is not None else ():
        _learn(found, target, destination)
    return _text(name, target, found)


def _learn(found: _Found, target: Target, destination: Destination) -> None:
    """Take from one destination what the Collector is to be told."""
    options = destination.options
    if destination.type in target.destinations:
        told = {**_of_region(destination), **{key: value for key, value in options.items() if value is not None}}
        given = {place: told[option] for option, place in target.options.items() if option in told}
        found.values |= {
            place: _shown(_formed(value, target.forms.get(place, ""))) for place, value in given.items() if value != ""
        }
        for place in target.instead.keys() & given.keys():
            replaced, further = target.instead[place]
            found.values.pop(replaced, None)
            found.values |= further
        found.notes.append(f"sends on to where the destination {destination.name} sends today")
        return
    protocol = _OTLP.get(destination.type)
    if protocol is None:
        return
    parts = urlsplit(_whole(str(options["endpoint"]), insecure=bool(options.get("insecure"))))
    if target.otlp == protocol and not _is_loopback(parts.hostname or ""):
        found.values["endpoint"] = _shown(_of_backend(destination.type, str(options["endpoint"])))
        found.values["plaintext"] = "true" if parts.scheme == "http" else "false"
        found.headers |= {header: _variable(header, target) for header in options.get("headers") or ()}
        found.notes.append(f"sends on to where the destination {destination.name} sends today: point that here instead")
    elif protocol not in found.listeners and (_is_loopback(parts.hostname or "") or parts.port in _PORTS.values()):
        found.listeners[protocol] = _listener(protocol, parts)
        found.notes.append(f"receives what the destination {destination.name} sends")


def _listener(protocol: str, parts: SplitResult) -> _Listener:
    """Return where the receiver has to listen for what is sent to an endpoint."""
    host = parts.hostname or ""
    if not _is_loopback(host):
        host = "0.0.0.0"  # noqa: S104 - a machine that others reach, its name is not its address
    host = "127.0.0.1" if host in _LOOPBACK else f"[{host}]" if ":" in host else host
    address = f"{host}:{parts.port or _PORTS[protocol]}"
    return _Listener(f'"{address}"' if "[" in address else address, tls=parts.scheme == "https")


def _whole(endpoint: str, *, insecure: bool) -> str:
    return endpoint if "://" in endpoint else f"{'http' if insecure else 'https'}://{endpoint}"


def _of_backend(kind: str, endpoint: str) -> str:
    """Return an endpoint as the Collector's exporter wants it: without the path that it adds itself."""
    return endpoint.removesuffix("/v1/traces") if kind == "otlp_http" else endpoint


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK


def _variable(header: str, target: Target) -> str:
    """Return the variable that is to hold a header's value."""
    return f"{target.prefix}_{header.upper().replace('-', '_').replace('.', '_')}"


def _of_region(destination: Destination) -> dict[str, str]:
    """Return the endpoint of a vendor's region, where the destination has one."""
    wire = catalog.row(destination.type).wire
    there = dict(wire.regions).get(str(destination.options.get("region"))) if wire is not None else None
    return {} if there is None else {"endpoint": there}


def _formed(value: Any, form: str) -> Any:
    """Return what ``form`` makes of a value, which may be an address with OTLP's own path, or with the form's end."""
    if not form:
        return value
    start, _, end = form.partition("{}")
    return start + _public(str(value)).rstrip("/").removesuffix("/v1/traces").removesuffix(end) + end


def _public(text: str) -> str:
    """Return a text; of a URL, only what is no credential."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _shown(value: Any) -> str:
    """Return an option's value as YAML, without credentials."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(_public(str(value)).replace("$", "$$"))  # a $ would begin a variable of the Collector's


def _text(name: str, target: Target, found: _Found) -> str:
    listeners = found.listeners or {kind: _Listener(f"127.0.0.1:{port}") for kind, port in _PORTS.items()}
    exporter = _filled(target.exporter, found.values)
    if found.headers:
        exporter = _with_headers(exporter, found.headers)
    variables = dict.fromkeys(found.headers.values(), "the value of that header") or target.variables
    sections: Mapping[str, str] = {
        "HEADING": _heading(name, target, found.notes, variables, next(iter(listeners.values()))),
        "RECEIVERS": "\n".join(_receiver(kind, listener) for kind, listener in listeners.items()),
        "PROCESSORS": f"{_filled(target.processors, found.values)}\n" if target.processors else "",
        "EXPORTERS": exporter,
        "CHAIN": ", ".join(("memory_limiter", *target.chain)),
        "EXPORTER": target.component,
    }
    return f"{_filled(PIPELINE, sections)}\n"


def _heading(name: str, target: Target, notes: list[str], variables: Mapping[str, str], listener: _Listener) -> str:
    lines = [f"{target.title}.", "", "  otelcol-contrib --config FILE"]
    lines += [f"  OTEL_EXPORTER_OTLP_ENDPOINT=http://{listener.endpoint} otelgw"] if not notes else []
    lines += ["", f"Printed by `otelgw collector render --to {name}`."]
    lines += [f"- It {note}." for note in notes]
    if variables:
        width = max(map(len, variables))
        lines += ["", "Variables:", *(f"  {key.ljust(width)}  {text}" for key, text in variables.items())]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _receiver(kind: str, listener: _Listener) -> str:
    limit = (
        ["# A span with a whole conversation can be larger than gRPC's default of 4 MiB.", "max_recv_msg_size_mib: 64"]
        if kind == "grpc"
        else []
    )
    tls = ["tls:", "  cert_file: ${env:OTELCOL_TLS_CERT}", "  key_file: ${env:OTELCOL_TLS_KEY}"] if listener.tls else []
    lines = [f"endpoint: {listener.endpoint}", *limit, *tls]
    return "\n".join([f"      {kind}:", *(f"        {line}" for line in lines)])


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Replace each ``<<NAME>>`` by its value; a line with one that has no value is left out."""
    lines = []
    for line in text.strip("\n").split("\n"):
        name = line.partition("<<")[2].partition(">>")[0]
        if not name:
            lines.append(line)
        elif name in values:
            lines.append(line.replace(f"<<{name}>>", values[name]))
    return "\n".join(lines)


def _with_headers(exporter: str, headers: Mapping[str, str]) -> str:
    """Return an exporter's text with these headers in place of its own."""
    kept: list[str] = []
    within = False
    for line in exporter.split("\n"):
        within = line.strip() == "headers:" or (within and line.startswith("      "))
        if not within:
            kept.append(line)
    first, *rest = kept
    lines = [f"      {name}: ${{env:{variable}}}" for name, variable in headers.items()]
    return "\n".join([first, "    headers:", *lines, *rest])
