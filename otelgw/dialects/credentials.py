"""What counts as a credential inside a body: names of fields and of URL parameters whose values are never recorded."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["REDACTED", "is_secret", "redacted", "redacted_text", "redacted_url"]

REDACTED = "REDACTED"

_NAMES = frozenset(
    {
        "apikey",
        "authorization",
        "authtoken",
        "cookie",
        "credential",
        "credentials",
        "passwd",
        "password",
        "secret",
        "setcookie",
        "sig",
        "signature",
        "token",
    }
)
_ENDINGS = (
    "accesskey",
    "accesskeyid",
    "accesstoken",
    "apikey",
    "authorization",
    "authtoken",
    "credential",
    "password",
    "privatekey",
    "refreshtoken",
    "secret",
    "secretkey",
    "securitytoken",
    "sessiontoken",
    "signature",
)
_SEPARATORS = str.maketrans("", "", "-_. ")
_PARAMETER = re.compile(r"([?&;#])([^=&;#]{1,128})=([^&;#\s]*)")
# Keys as providers issue them, and what follows the words that announce one.
_KEY_IN_TEXT = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|pplx|csk|tgp)[-_](?=[\w*-]*[\d*])[\w*-]{8,}|AIza[\w-]{20,}|AKIA[0-9A-Z]{12,}"
    r"|eyJ[\w-]{8,}\.[\w.-]+)|(?i:\bbearer\s+|\bapi[-_ ]?key\b[^\w]{1,4})(?=\S*\d)[^\s'\",;]{8,}"
)
_USERINFO = re.compile(r"(?<=//)[^/?#@\s]*@")


def is_secret(name: str) -> bool:
    """Say whether a field, header or URL parameter called ``name`` holds a credential."""
    plain = name.lower().translate(_SEPARATORS)
    return plain in _NAMES or plain.endswith(_ENDINGS)


def redacted(value: Any, depth: int = 16) -> Any:
    """Return a JSON value without the credentials in it: by the names of its fields, at any depth down to ``depth``."""
    if not depth:
        return REDACTED
    if isinstance(value, dict):
        return {key: REDACTED if is_secret(str(key)) else redacted(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, depth - 1) for item in value]
    return value


def redacted_url(url: str) -> str:
    """Return ``url`` without user information and without the values of secret parameters (``key`` among them)."""
    if "@" in url:
        url = _USERINFO.sub(f"{REDACTED}@", url)
    if "=" not in url:
        return url
    return _PARAMETER.sub(_redacted_parameter, url)


def redacted_text(text: str) -> str:
    """Return ``text`` without what looks like an API key in it: providers repeat keys in their error messages."""
    return _KEY_IN_TEXT.sub(REDACTED, redacted_url(text))


def _redacted_parameter(match: re.Match[str]) -> str:
    separator, name, value = match.groups()
    return f"{separator}{name}={REDACTED if value and (name == 'key' or is_secret(name)) else value}"
