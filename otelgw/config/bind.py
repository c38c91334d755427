"""How the gateway is reached: flags, then ``OTELGW_*`` variables, then the file's ``server`` section."""

from __future__ import annotations

import ipaddress
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from otelgw.config.context import Context
from otelgw.config.document import Location
from otelgw.config.flags import FLAGS, Flag, Flags
from otelgw.config.model import OtelgwSection
from otelgw.config.settings import Server

__all__ = ["is_loopback", "server", "state_dir"]

_AT: Location = ("otelgw", "server")
_MAX_PORT = 65_535
_MAX_WORKERS = 1024


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach ``host``."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def server(section: OtelgwSection, flags: Flags, context: Context, *, json_logs: bool, open_door: bool) -> Server:
    """Return the server's settings. ``open_door`` says that no master key guards it.

    A bind beyond loopback without a master key is an error unless it is allowed explicitly.
    """
    file = section.server
    values: dict[str, Any] = {
        name: getattr(file, name) for name in ("host", "port", "workers", "kind", "h2c", "drain", "keep_alive")
    }
    values |= {"log_level": file.log_level, "log_json": file.log_json or json_logs, "allow_open": file.allow_open}
    for name in ("certfile", "keyfile"):
        path = getattr(file, f"ssl_{name}")
        values[name] = context.path(path) if path else None
    chosen = _chosen(flags, context)
    values |= {_FIELDS.get(name, name): value for name, value in chosen.items() if _FIELDS.get(name, name) in values}
    if chosen.get("debug") or chosen.get("detailed_debug"):
        values["log_level"] = "debug"
    found = Server(**{field.name: values[field.name] for field in fields(Server) if field.name in values})
    _check(found, context, open_door=open_door)
    return found


_FIELDS = {"server": "kind", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


def _chosen(flags: Flags, context: Context) -> dict[str, Any]:
    """Return what flags and variables say, by the flag's name."""
    chosen: dict[str, Any] = {}
    for flag in FLAGS:
        if flag.name not in Flags.names() or flag.name in chosen or flag.name == "config":
            continue
        value = getattr(flags, flag.name)
        if value is None:
            value = _variable(flag, context)
        if value is not None:
            chosen[flag.name] = value
    return chosen


def _variable(flag: Flag, context: Context) -> str | int | bool | None:
    try:
        return flag.read(context.variable(flag.variable))
    except ValueError as error:
        context.findings.environment_error(flag.variable, str(error))
        return None


def _check(found: Server, context: Context, *, open_door: bool) -> None:
    error = context.findings.error
    if not 0 <= found.port <= _MAX_PORT:
        error((*_AT, "port"), f"{found.port} must be between 0 and {_MAX_PORT}")
    if not 1 <= found.workers <= _MAX_WORKERS:
        error((*_AT, "workers"), f"{found.workers} must be between 1 and {_MAX_WORKERS}")
    if not found.host.strip() or any(character.isspace() for character in found.host):
        error((*_AT, "host"), "must be an address or a host name")
    if found.kind == "uvicorn" and find_spec("uvicorn") is None:
        error((*_AT, "kind"), "uvicorn is not installed; install it with: pip install 'otelgw[uvicorn]'")
    if bool(found.certfile) != bool(found.keyfile):
        error((*_AT, "ssl_certfile"), "certificate and key go together: set ssl_certfile and ssl_keyfile")
    for name, path in (("ssl_certfile", found.certfile), ("ssl_keyfile", found.keyfile)):
        if path and not Path(path).is_file():
            error((*_AT, name), f"no such file: {path}")
    if open_door and not found.allow_open and not is_loopback(found.host):
        error(
            (*_AT, "host"),
            f"{found.host} can be reached from other machines and no key is asked for: set "
            "general_settings.master_key, bind 127.0.0.1, or pass --allow-open if everybody may spend your tokens",
        )


def state_dir(section: OtelgwSection, port: int, context: Context) -> str:
    """Return the state directory; nothing is created."""
    if section.state_dir:
        return context.path(section.state_dir)
    own = context.variable("OTELGW_STATE_DIR")
    if own:
        return own
    systemd = context.variable("STATE_DIRECTORY")
    if systemd:
        return systemd.split(":")[0]
    base = context.variable("XDG_STATE_HOME")
    # The XDG specification has relative values ignored.
    if not base.startswith("/"):
        base = context.path("~/.local/state")
    return f"{base}/otelgw/{port}"
