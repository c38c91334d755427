"""The lines that a started gateway prints: where it is, what it does, and a call to try."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

import otelgw
from otelgw.config.settings import Settings

__all__ = ["start"]


# Addresses that mean every interface, and one to reach them by.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound


def _short(path: str) -> str:
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def start(settings: Settings) -> str:
    """Return the start line, warnings, and a curl line to paste."""
    server = settings.server
    scheme = "https" if server.certfile else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"{scheme}://{host}:{server.port}"
    models = sorted({deployment.alias for deployment in settings.deployments})
    shown = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    destinations = ", ".join(destination.name for destination in settings.destinations) or "none"
    auth = "master key" if settings.auth.master_key_sha256 else "off (loopback only)"
    if server.allow_open and not settings.auth.master_key_sha256:
        auth = "off (open to everybody)"
    content = "on" if settings.tracing.content else "off"
    facts = f"models: {shown or 'none'}  destinations: {destinations}  auth: {auth}  content: {content}"
    if settings.receiver is not None:
        bound = {"grpc": settings.receiver.grpc, "http": settings.receiver.http}
        facts += "  receiver: " + ", ".join(f"{kind} {address}" for kind, address in bound.items() if address)
    lines = [f"otelgw {otelgw.__version__}  {url}  {facts}  state: {_short(settings.state_dir)}"]
    lines += [f"warning: {warning}" for warning in settings.warnings]
    example = _example(settings)
    if example:
        url = f"{scheme}://{_EVERYWHERE.get(server.host, host)}:{server.port}"
        lines.append(f"try:  {_curl(url, example, bool(settings.auth.master_key_sha256))}")
    return "\n".join(lines) + "\n"


def _example(settings: Settings) -> str:
    """Return a model that chats: the one that costs nothing where there is one, else the first."""
    chats = [
        deployment
        for deployment in settings.deployments
        if "*" not in deployment.alias and deployment.model_info.get("mode", "chat") == "chat"
    ]
    chosen = min(chats, key=lambda deployment: deployment.provider != "echo", default=None)
    return chosen.alias if chosen is not None else ""


def _curl(url: str, model: str, key: bool) -> str:
    body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "hello"}]}).decode()
    header = ' -H "Authorization: Bearer $OTELGW_KEY"' if key else ""
    # Brackets of an IPv6 address are a pattern to curl, and to some shells.
    flags, target = ("-gs", f"'{url}/v1/chat/completions'") if "[" in url else ("-s", f"{url}/v1/chat/completions")
    return f"curl {flags} {target}{header} -d {shlex.quote(body)}"
