"""``otelgw test``: one chat request to a running gateway, and what came back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from otelgw.errors import OtelgwError

__all__ = ["Answer", "Probe", "ProbeError", "probe"]

_SHOWN = ("x-litellm-", "x-otelgw-")
_TRACE = ("traceresponse", "server-timing")
_MAX_SHOWN = 500
_KEY = "otelgw test: give the key with --key, or as OTELGW_KEY"


class ProbeError(OtelgwError):
    """The gateway cannot be reached, or has no answer."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask whom. ``timeout`` is in seconds."""

    url: str
    key: str = ""
    model: str = ""
    message: str = "hello"
    stream: bool = False
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``headers`` are the gateway's own, in the order of arrival."""

    model: str
    status: int
    text: str
    trace_id: str
    headers: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        return self.status == httpx.codes.OK


def probe(target: Probe) -> Answer:
    """Send one request and return the answer, also one that reports an error.

    Raises:
        ProbeError: nothing listens there, it gave no HTTP answer, or it has no model that could be asked.
    """
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    try:
        # No proxy: the gateway is asked itself, where it listens.
        with httpx.Client(base_url=target.url, timeout=target.timeout, trust_env=False, headers=headers) as client:
            model = target.model or _first_model(client)
            body = {
                "model": model,
                "messages": [{"role": "user", "content": target.message}],
                **({"stream": True} if target.stream else {}),
            }
            response = client.post("/v1/chat/completions", json=body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise ProbeError(f"{target.url}: {_cause(error)}; is the gateway running there?") from None
    read = _stream_text if target.stream and response.is_success else _text
    return Answer(
        model=model,
        status=response.status_code,
        text=read(response.content),
        trace_id=response.headers.get("x-otelgw-trace-id", ""),
        headers=tuple(_own(response.headers.multi_items())),
    )


def _cause(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _first_model(client: httpx.Client) -> str:
    response = client.get("/v1/models")
    if not response.is_success:
        asked = f" ({_KEY})" if response.status_code == httpx.codes.UNAUTHORIZED else ""
        raise ProbeError(f"GET /v1/models: {response.status_code} {_text(response.content)}{asked}")
    models = _field(_json(response.content), "data")
    names = [_field(model, "id") for model in models] if isinstance(models, list) else []
    name = next((name for name in names if isinstance(name, str) and name and "*" not in name), None)
    if name is None:
        raise ProbeError("the gateway lists no model that can be asked by name; choose one with --model")
    return name


def _own(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.startswith(_SHOWN) or name in _TRACE)


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _field(value: Any, *path: str | int) -> Any:
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and len(value) > key else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(content: bytes) -> str:
    """Return the message of an answer or of an error, else the beginning of the body."""
    data = _json(content)
    for path in (("choices", 0, "message", "content"), ("error", "message")):
        found = _field(data, *path)
        if isinstance(found, str):
            return found
    return content[:_MAX_SHOWN].decode("utf-8", "replace")


def _stream_text(content: bytes) -> str:
    """Return the text that the deltas of a stream add up to."""
    text = ""
    for line in content.splitlines():
        if line.startswith(b"data:"):
            delta = _field(_json(line[len(b"data:") :].strip()), "choices", 0, "delta", "content")
            text += delta if isinstance(delta, str) else ""
    return text
