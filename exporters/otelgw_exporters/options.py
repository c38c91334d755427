"""Options of destinations: from environment variables, from the config, checked. The room's only reader of variables.

OpenTelemetry's variables follow the specification (``OTEL_EXPORTER_OTLP_TRACES_*`` before ``OTEL_EXPORTER_OTLP_*``);
LiteLLM's ``OTEL_EXPORTER``, ``OTEL_ENDPOINT`` and ``OTEL_HEADERS`` come after them. A blank variable counts as unset.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from otelgw_exporters import catalog, confinement
from otelgw_exporters.catalog import Option, Row
from otelgw_exporters.errors import DestinationConfigError

__all__ = [
    "checked_headers",
    "complete",
    "from_environment",
    "otlp_type",
    "parse_headers",
    "resolve",
    "secret_values",
    "traces_exporter_types",
]

_TRACES_PATH = "/v1/traces"
_NUMBER = re.compile(r"\d+(?:\.\d*)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_BEFORE_HEADER = re.compile(r",(?=\s*[!#$%&'*+\-.^_`|~0-9A-Za-z]+=)")  # other commas belong to the value before them
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|DSN|AUTH|_URL$|_URI$", re.IGNORECASE)
_GRPC = {"grpc", "otlp_grpc"}
_HTTP = {"otlp_http": "http/protobuf", "http/protobuf": "http/protobuf", "http/json": "http/json"}
_LITELLM_ENDPOINT = "OTEL_ENDPOINT"
_LITELLM_EXPORTER = "OTEL_EXPORTER"


def from_environment(row: Row, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the options of ``row`` that ``env`` (by default the process's) gives.

    Raises:
        DestinationConfigError: a variable cannot be read; names it, and never shows a secret value.
    """
    if env is None:
        env = os.environ if confinement.bounds() is None else {}
    found: dict[str, Any] = {}
    for option in row.options:
        name = next((name for name in option.env if env.get(name, "").strip()), None)
        if name:
            value = _from_variable(row, option, name, env[name].strip())
            if value is not None:
                found[option.name] = value
    return found


def resolve(row: Row, given: Mapping[str, Any], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return every option of ``row``: as ``given``, else from the environment, else its default.

    A given value of None counts as not given. Where the endpoint is given, options that belong to an endpoint
    (credentials, certificates) are not taken from the environment: they are meant for another one.

    Raises:
        DestinationConfigError: an option is unknown or cannot be used.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    checked = {name: _checked(row, row.option(name), value) for name, value in chosen.items()}
    inherited = from_environment(row, env)
    groups = {row.option(name).group for name in checked} - {""}
    inherited = {name: value for name, value in inherited.items() if row.option(name).group not in groups}
    if "endpoint" in checked:
        inherited = {name: value for name, value in inherited.items() if not row.option(name).bound}
    return {option.name: option.default for option in row.options} | inherited | checked


def complete(row: Row, given: Mapping[str, Any], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return every option of ``row`` as ``resolve`` does, those that it cannot do without among them.

    Raises:
        DestinationConfigError: an option is unknown, cannot be used, or is required and missing.
    """
    found = resolve(row, given, env)
    for option in row.options:
        if option.required and not found[option.name] and not found.get(option.unless):
            variables = f", or the variable {' or '.join(option.env)}" if option.env else ""
            raise DestinationConfigError(f"{row.name}: {option.name} is missing; set it{variables}")
    return found


def secret_values(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of ``env`` (by default the process's) that hold a secret, going by their names."""
    env = os.environ if env is None else env
    return {name: value for name, value in env.items() if _SECRET_NAME.search(name)}


def otlp_type(env: Mapping[str, str]) -> str:
    """Return the destination type that ``otel`` stands for: otlp_grpc, otlp_http or console.

    The protocol variables decide, then LiteLLM's OTEL_EXPORTER. Without any, an endpoint with a path or with OTLP's
    HTTP port is taken for HTTP, everything else for gRPC.

    Raises:
        DestinationConfigError: a variable names no known protocol.
    """
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL", _LITELLM_EXPORTER):
        value = env.get(name, "").strip().lower()
        if value:
            known = dict.fromkeys(_GRPC, "otlp_grpc") | dict.fromkeys(_HTTP, "otlp_http")
            if name == _LITELLM_EXPORTER:
                known["console"] = "console"
            if value not in known:
                raise DestinationConfigError(f"{name}: {value!r} is not one of {', '.join(sorted(known))}")
            return known[value]
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", _LITELLM_ENDPOINT)
    endpoint = next(filter(None, (env.get(name, "").strip() for name in names)), "")
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return "otlp_http" if parts.path.strip("/") or parts.netloc.endswith(":4318") else "otlp_grpc"


def traces_exporter_types(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the destination types that OTEL_TRACES_EXPORTER names; none for ``none`` or when it is not set.

    Raises:
        DestinationConfigError: an entry is not known.
    """
    known = {"otlp": "", "console": "console", "none": "none"} | {row.name: row.name for row in catalog.ROWS}
    known |= {f"otelgw_{row.name}": row.name for row in catalog.ROWS}
    types = []
    for entry in filter(None, (part.strip() for part in env.get("OTEL_TRACES_EXPORTER", "").split(","))):
        if entry not in known:
            near = difflib.get_close_matches(entry, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            names = ", ".join(name for name in known if not name.startswith("otelgw_"))
            raise DestinationConfigError(f"OTEL_TRACES_EXPORTER: {entry[:60]!r} is not one of {names}{hint}")
        types.append(known[entry] or _otlp_only(env))
    return tuple(dict.fromkeys(kind for kind in types if kind != "none"))


def _otlp_only(env: Mapping[str, str]) -> str:
    kind = otlp_type(env)
    return "otlp_grpc" if kind == "console" else kind


def parse_headers(text: str, where: str, *, loose: bool = False) -> dict[str, str]:
    """Return the headers in ``name=value,name=value``, values URL-decoded, names in lower case.

    ``loose``: a comma ends a value only where ``name=`` follows it, so that values may hold commas.

    Raises:
        DestinationConfigError: an entry is malformed; says which of ``where``, and shows no value.
    """
    headers = {}
    for number, entry in enumerate(_BEFORE_HEADER.split(text) if loose else text.split(","), 1):
        if not entry.strip():
            continue
        name, equals, value = entry.partition("=")
        name = unquote(name).strip().lower()
        if not equals or not _HEADER_NAME.fullmatch(name):
            raise DestinationConfigError(f"{where}: entry {number} is not name=value (a comma in a value is %2C)")
        headers[name] = unquote(value).strip()
    return checked_headers(headers, where)


def checked_headers(headers: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return ``headers`` with their names in lower case.

    Raises:
        DestinationConfigError: a name or value is none; says which of ``where``, and shows no value.
    """
    checked = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise DestinationConfigError(f"{where}: {name!r} is no header name")
        if not isinstance(value, str | int) or not _HEADER_VALUE.fullmatch(str(value)):
            raise DestinationConfigError(f"{where}: the value of {name} is no text of printable ASCII characters")
        checked[name.lower()] = str(value)
    return checked


def _from_variable(row: Row, option: Option, name: str, text: str) -> Any:
    """Return a variable's value as the option's; None where it says nothing about this option."""
    if special := _VARIABLES.get((row.name, option.name)):
        return special(name, text)
    if option.kind == "headers":
        return parse_headers(text, name, loose=row.loose_headers)
    if option.kind == "seconds" and name.startswith("OTEL_"):
        return _milliseconds(name, text)
    if option.kind == "seconds" and _NUMBER.fullmatch(text):
        return _checked(row, option, float(text), where=name)
    if option.kind == "count" and text.isdecimal():
        return _checked(row, option, int(text), where=name)
    return _checked(row, option, text, where=name)


def _milliseconds(name: str, text: str) -> float:
    """Return seconds. The specification's unit is milliseconds; OpenTelemetry's own Python exporters read seconds.

    A timeout below 100 ms makes no sense and one above 100 s hardly any, so the size tells which was meant.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86_400_000:
        raise DestinationConfigError(f"{name}: {text!r} is no number of milliseconds")
    return value if value < 100 else value / 1000


def _http_endpoint(name: str, text: str) -> str:
    """Apply the specification's path rule: the traces variable is the whole URL, the general one a base."""
    parts = urlsplit(_url(name, _litellm_scheme(name, text), ("http", "https")))
    if name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":
        return parts._replace(path=parts.path or "/").geturl()
    if name == _LITELLM_ENDPOINT and parts.path.endswith(_TRACES_PATH):
        return parts.geturl()
    return parts._replace(path=parts.path.rstrip("/") + _TRACES_PATH).geturl()


def _grpc_endpoint(name: str, text: str) -> str:
    return _url(name, _litellm_scheme(name, text), ("http", "https", ""))


def _litellm_scheme(name: str, text: str) -> str:
    """Let LiteLLM's default, a Collector on the same machine without TLS, be written without a scheme."""
    return f"http://{text}" if name == _LITELLM_ENDPOINT and "://" not in text and _is_loopback(text) else text


def _is_loopback(target: str) -> bool:
    host = urlsplit(f"//{target}").hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _console_format(_name: str, text: str) -> str | None:
    return "json" if text.lower() == "console" else None


def _no_color(_name: str, _text: str) -> bool:
    return False


def _protocol(_name: str, text: str) -> str | None:
    return _HTTP.get(text.lower())


_VARIABLES: Mapping[tuple[str, str], Callable[[str, str], Any]] = {
    ("console", "format"): _console_format,
    ("console", "color"): _no_color,
    ("otlp_grpc", "endpoint"): _grpc_endpoint,
    ("otlp_http", "endpoint"): _http_endpoint,
    ("otlp_http", "protocol"): _protocol,
}


def _checked(row: Row, option: Option, value: Any, where: str = "") -> Any:
    """Return ``value`` as the option's type; ``where`` names its origin for the error."""
    if value == option.default and type(value) is type(option.default):
        return value  # resolved before, perhaps to what nobody could set, such as no text
    return _CHECKS[option.kind](row, option, value, where or f"{row.name}: {option.name}")


def _check_choice(_row: Row, option: Option, value: Any, where: str) -> str:
    text = str(value).strip().lower()
    if text not in option.choices:
        raise DestinationConfigError(f"{where}: {value!r} is not one of {', '.join(option.choices)}")
    return text


def _check_flag(_row: Row, _option: Option, value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).strip().lower() not in {"true", "false"}:
        raise DestinationConfigError(f"{where}: {value!r} is neither true nor false")
    return str(value).strip().lower() == "true"


def _check_number(_row: Row, _option: Option, value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 86_400:
        return float(value)
    raise DestinationConfigError(f"{where}: {value!r} is no positive number of seconds")


def _check_count(_row: Row, _option: Option, value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise DestinationConfigError(f"{where}: {value!r} is no positive whole number")


def _check_headers(row: Row, _option: Option, value: Any, where: str) -> dict[str, str]:
    if isinstance(value, str):
        return parse_headers(value, where, loose=row.loose_headers)
    if isinstance(value, Mapping):
        return checked_headers(value, where)
    raise DestinationConfigError(f"{where}: headers are a mapping of names to values, or name=value,name=value")


def _check_mapping(_row: Row, _option: Option, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DestinationConfigError(f"{where}: expected `key: value` pairs")
    return dict(value)


def _check_names(_row: Row, option: Option, value: Any, where: str) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise DestinationConfigError(f"{where}: expected a list of names, or name,name")
    names = tuple(dict.fromkeys(filter(None, (entry.strip() for entry in entries))))
    if option.choices and (unknown := [name for name in names if name not in option.choices]):
        raise DestinationConfigError(f"{where}: {unknown[0]!r} is not one of {', '.join(option.choices)}")
    return names


def _check_text(_row: Row, _option: Option, value: Any, where: str) -> str:
    if isinstance(value, str | os.PathLike) and (text := os.fspath(value)):
        return str(text)
    raise DestinationConfigError(f"{where}: expected text")


def _check_url(row: Row, _option: Option, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DestinationConfigError(f"{where}: expected a URL")
    if row.name == "otlp_grpc":
        return _url(where, value.strip(), ("http", "https", ""))
    parts = urlsplit(_url(where, value.strip(), ("http", "https")))
    return parts._replace(path=parts.path or _TRACES_PATH).geturl() if row.name == "otlp_http" else parts.geturl()


_CHECKS: Mapping[str, Callable[[Row, Option, Any, str], Any]] = {
    "choice": _check_choice,
    "count": _check_count,
    "flag": _check_flag,
    "headers": _check_headers,
    "mapping": _check_mapping,
    "names": _check_names,
    "path": _check_text,
    "seconds": _check_number,
    "text": _check_text,
    "url": _check_url,
}


def _url(where: str, text: str, schemes: tuple[str, ...]) -> str:
    """Return ``text`` if it is a URL with a host; the error shows nothing of it, since it may hold a password."""
    schemeless = "://" not in text
    try:
        parts = urlsplit(f"//{text}" if schemeless else text)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and not ("" in schemes and parts.username)  # gRPC targets have no place for credentials
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.scheme not in schemes or (schemeless and "/" in text):
        example = "https://collector.example:4317" if "" in schemes else "https://collector.example:4318/v1/traces"
        raise DestinationConfigError(f"{where}: expected a URL with a scheme and a host, such as {example}")
    return text
