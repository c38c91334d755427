"""The caller's JSON body on its way upstream: read as little as routing needs, change as few bytes as possible.

Where only the model name differs or ``stream_options`` is added, the change is spliced into the caller's bytes. Only
when fields have to go (the gateway's own, LiteLLM's) or defaults have to come is the top level put together anew, each
value's bytes unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from otelgw.dialects.credentials import is_secret
from otelgw.errors import RequestRefused
from otelgw.http.headers import SECRET_PARAMETERS

__all__ = [
    "GATEWAY_FIELDS",
    "REDIRECTING_FIELDS",
    "Fields",
    "read_fields",
    "recordable",
    "rewrite",
    "scrubbed",
    "unparsed",
    "value_of",
]

Fields = dict[str, msgspec.Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# Fields that would send the call, its credentials or its record somewhere else.
REDIRECTING_FIELDS = frozenset(
    {"api_base", "base_url", "api_key", "api_version", "organization", "user_config", "custom_llm_provider",
     "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_bedrock_runtime_endpoint",
     "azure_ad_token", "vertex_credentials", "langfuse_host", "langfuse_public_key", "langfuse_secret",
     "langfuse_secret_key", "langsmith_api_key", "langsmith_base_url", "gcs_bucket_name", "callback_url"}
)  # fmt: skip

# Read here and not sent upstream.
GATEWAY_FIELDS = REDIRECTING_FIELDS | {
    "litellm_metadata", "litellm_params", "litellm_call_id", "litellm_trace_id", "litellm_session_id",
    "litellm_logging_obj", "no-log", "turn_off_message_logging", "tags", "cache", "caching", "guardrails",
    "num_retries", "fallbacks", "context_window_fallback_dict", "mock_response", "proxy_server_request",
    "drop_params", "allowed_openai_params", "x-litellm-disable-callbacks",
}  # fmt: skip

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MODEL_VALUE = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_SECRET_FIELDS = SECRET_PARAMETERS - {"key", "code", "token", "auth", "sig", "signature"} | {
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "azure_ad_token", "vertex_credentials",
    "langfuse_secret", "langfuse_secret_key", "langfuse_public_key", "langsmith_api_key", "private_key",
    "bearer_token", "cookie", "set_cookie", "proxy_authorization",
}  # fmt: skip
# Ends of field names that could be secret; a plain search is far cheaper than parsing every body.
_SECRET_HINTS = (b'key"', b'authorization"', b"secret", b'token"', b'password"', b'passwd"', b"credential", b'cookie"',
                 b'sig"', b'signature"', b'keyid"', b'key_id"', b'key-id"')  # fmt: skip
# The same in a body that is no JSON: quoted anyhow or not at all.
_SECRET_IN_TEXT = re.compile(
    rb"(?:key|key[_-]?id|authorization|secret|token|passw(?:or)?d|credentials?|cookie|sig(?:nature)?)[\\'\"]{0,4}\s*[:=]|\bbearer\s",
    re.IGNORECASE,
)
_CONTENT_FIELDS = frozenset({"messages", "input", "prompt"})
_SHORTEST_OBJECT = len(b'{"key":""}')
_REDACTED = "REDACTED"


def read_fields(body: bytes) -> Fields:
    """Return the top-level fields of a JSON object, their values undecoded.

    Raises:
        RequestRefused: 400 invalid_json with line, column and the likely cause; 400 invalid_request for no object.
    """
    try:
        return _decode_fields(body)
    except msgspec.ValidationError:
        raise RequestRefused("invalid_request", 'The body must be a JSON object, such as {"model": …}.') from None
    except RecursionError:
        raise RequestRefused("invalid_json", "The body is nested too deeply; send it flatter.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused("invalid_json", _fault(body, str(error))) from None


def _fault(body: bytes, fallback: str) -> str:
    """Say where ``body`` stops being JSON, and why as far as that can be told."""
    if not body.strip():
        return "The body is empty; send a JSON object."
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        text, position = error.doc, error.pos
        after = text[position : position + 2]
        before = text[:position].rstrip()
        cause = ""
        if error.msg.startswith("Illegal trailing comma") or (before.endswith(",") and after[:1] in {"}", "]"}):
            cause = "; likely cause: a trailing comma"
        elif after[:1] == "#" or after in {"//", "/*"}:
            cause = "; likely cause: a comment, which JSON does not have"
        elif after[:1] == "'":
            cause = "; likely cause: single quotes, where JSON has double quotes"
        return f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{cause}."
    except (UnicodeDecodeError, RecursionError, ValueError):
        pass
    return f"The body is not JSON: {fallback}."


def value_of(fields: Fields, name: str) -> Any:
    """Return the decoded value of a field, None where it is absent.

    Raises:
        RequestRefused: 400 invalid_json for text that is not UTF-8 and the like; ``read_fields`` does not look at that.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _decode_any(raw)
    except _UNREADABLE:
        raise RequestRefused("invalid_json", f"The value of `{name}` is no JSON in UTF-8.", param=name) from None


def rewrite(
    body: bytes,
    fields: Fields,
    *,
    model: str,
    inject_usage: bool = False,
    defaults: Mapping[str, Any] | None = None,
    drop: frozenset[str] = GATEWAY_FIELDS,
) -> bytes:
    """Return the body to send upstream: ``model`` set where there is one and it is not empty, ``drop`` left out,
    ``defaults`` added where absent.

    ``inject_usage`` sets ``stream_options.include_usage``.
    """
    missing = {name: value for name, value in defaults.items() if name not in fields} if defaults else None
    options = fields.get("stream_options") if inject_usage else None
    if missing or options is not None or not drop.isdisjoint(fields):
        return _rebuild(fields, model, inject_usage, missing, drop)
    if model and "model" in fields:
        spliced = _splice_model(body, model)
        if spliced is None:
            return _rebuild(fields, model, inject_usage, missing, drop)
        body = spliced
    if inject_usage:
        start = body.index(b"{") + 1
        body = b'%b"stream_options":{"include_usage":true},%b' % (body[:start], body[start:])
    return body


def _splice_model(body: bytes, model: str) -> bytes | None:
    """Replace the model's value in place; None where it is not certain which place is the top-level field.

    A quote inside a string is escaped, so ``"model"`` in the bytes is always a whole string; it stands once, or the
    top level is put together anew. An escaped spelling of the key would hide from the search. All of that holds where
    the value stays as it is, too: of two ``model`` fields the upstream might read the other one.
    """
    at = body.find(b'"model"')
    if at < 0 or body.find(b'"model"', at + 7) >= 0 or body[at - 1 : at] == b"\\":
        return None
    if b"\\" in body and b"\\u006" in body:  # a single byte is looked for many times faster
        return None
    found = _MODEL_VALUE.match(body, at)
    if found is None:
        return None
    value = _encode(model)
    return body if found.group(1) == value else body[: found.start(1)] + value + body[found.end(1) :]


def _rebuild(
    fields: Fields, model: str, inject_usage: bool, missing: Mapping[str, Any] | None, drop: frozenset[str]
) -> bytes:
    kept: dict[str, Any] = {name: value for name, value in fields.items() if name not in drop}
    if model:
        kept["model"] = model
    if missing:
        kept.update(missing)
    if inject_usage:
        options = value_of(fields, "stream_options")
        kept["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return _encode(kept)


def recordable(body: bytes, fields: Fields) -> bytes:
    """Return ``body`` as it may be recorded: the values of credential fields, at any depth, replaced.

    What models read (``messages``, ``input``, ``prompt``) is content, not configuration, and is left alone.
    """
    scrubbed: dict[str, Any] = {}
    for name, raw in fields.items():
        if _names_a_secret(name):
            scrubbed[name] = _REDACTED
        elif name not in _CONTENT_FIELDS and len(raw) > _SHORTEST_OBJECT:
            lowered = bytes(raw).lower()
            if any(hint in lowered for hint in _SECRET_HINTS):
                try:
                    decoded = _decode_any(raw)
                except _UNREADABLE:
                    scrubbed[name] = _REDACTED  # what cannot be looked through is not recorded
                    continue
                if _has_secret(decoded):
                    scrubbed[name] = _scrub(decoded)
    return _encode({**fields, **scrubbed}) if scrubbed else body


def unparsed(body: bytes) -> bytes:
    """Return a text that has not been parsed as it may be recorded: not at all where it may hold a credential."""
    return b"" if _SECRET_IN_TEXT.search(body) else body


def scrubbed(value: Any) -> Any:
    """Return a decoded value with the values of credential fields, at any depth, replaced."""
    return _scrub(value)


def _is_secret(name: str, value: Any) -> bool:
    """A schema that describes a field of that name is no secret: only plain values are."""
    if isinstance(value, dict) and ("type" in value or "description" in value):
        return False
    return _names_a_secret(name)


@lru_cache(maxsize=4096)
def _names_a_secret(name: str) -> bool:
    return is_secret(name) or name.lower().replace("-", "_") in _SECRET_FIELDS


def _has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_secret(name, item) or _has_secret(item) for name, item in value.items())
    return isinstance(value, list) and any(map(_has_secret, value))


def _scrub(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _REDACTED if _is_secret(name, item) else _scrub(item) for name, item in value.items()}
    return [_scrub(item) for item in value] if isinstance(value, list) else value
