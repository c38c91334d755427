"""What Datadog's products have in common: where they are, how one is known there, tags, sizes and ages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from otelgw_exporters import document, http
from otelgw_exporters.delivery import Reply
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.posting import classify, explanation, packed

__all__ = ["LARGEST", "Intake", "Place", "cut", "intake", "tag", "tags_of"]

LARGEST = 1_000_000
"""Bytes of one log or span: what is beyond is cut off by Datadog, so that its JSON breaks."""

_SITE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")
_NOT_IN_A_TAG = re.compile(r"[,\s]+")
_LONGEST_TAG = 200  # characters; Datadog cuts tags off there


class Place(NamedTuple):
    """Where a product takes what is sent: the host's name before the site, paths at the site and at an agent."""

    host: str
    path: str
    agent_path: str


class Intake:
    """One product of one account."""

    def __init__(self, name: str, url: str, chosen: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        key: str = chosen["api_key"] or ""
        self.url = url
        self.site: str = chosen["site"]
        self._gzip = chosen["compression"] == "gzip"
        self._mask = http.Masked({"key": key, "": urlsplit(url).password or ""})
        tls = http.Tls(chosen["certificate"] or "")
        tls.check(name)
        given = {"user-agent": "otelgw", "accept-encoding": "identity", "content-type": "application/json", **headers}
        given |= {"dd-api-key": key} if key else {}
        given |= {"content-encoding": "gzip"} if self._gzip else {}
        self._http = http.client(name, headers=given, tls=tls)
        said = f"the API key is not valid at {self.site}: mend DD_API_KEY, or DD_SITE if the account is elsewhere"
        self._hints = {401: said, 403: said}

    def send(self, body: bytes, deadline: float) -> Reply:
        """Send one request and say what its answer means."""
        answer = http.send(self._http, self.url, packed(body) if self._gzip else body, deadline, self._mask)
        if isinstance(answer, Reply):
            return answer
        return classify(answer, self._mask(explanation(answer)), self._hints)

    def close(self) -> None:
        self._http.close()


def intake(name: str, chosen: Mapping[str, Any], place: Place, agent_headers: Mapping[str, str]) -> Intake:
    """Return the intake that the options of a row lead to: an endpoint of one's own, an agent, or the site.

    Raises:
        DestinationConfigError: an option cannot be used.
    """
    host: str = chosen["agent_host"] or ""
    if chosen["endpoint"]:
        parts = urlsplit(chosen["endpoint"])
        path = parts.path.rstrip("/") or (place.agent_path if host else place.path)
        return Intake(name, parts._replace(path=path).geturl(), chosen, agent_headers if host else {})
    if host:
        if not _HOST.fullmatch(host):
            raise DestinationConfigError(f"agent_host: {host!r} is no host name")
        return Intake(name, f"http://{host}:{chosen['agent_port']}{place.agent_path}", chosen, agent_headers)
    site = chosen["site"].strip().lower()
    if not _SITE.fullmatch(site):
        raise DestinationConfigError(f"site: {chosen['site']!r} is no site; write datadoghq.com or us5.datadoghq.com")
    return Intake(name, f"https://{place.host}.{site}{place.path}", chosen, {})


def tag(name: str, value: Any) -> str:
    """Return a tag as Datadog takes it: no commas, no white space."""
    return f"{name}:{_NOT_IN_A_TAG.sub('_', str(value).strip())}"[:_LONGEST_TAG]


def tags_of(chosen: Mapping[str, Any], payload: Mapping[str, Any]) -> list[str]:
    """Return the tags of a call: the configured ones, then who called which model."""
    held = payload["metadata"]
    pairs: Sequence[tuple[str, Any]] = (
        ("env", chosen["env"]),
        ("service", chosen["service"]),
        ("version", chosen["version"]),
        ("team", held["user_api_key_team_alias"] or held["user_api_key_team_id"]),
        ("key_alias", held["user_api_key_alias"]),
        ("model_group", payload["model_group"]),
        ("provider", payload["custom_llm_provider"]),
        *(("request_tag", each) for each in payload["request_tags"]),
    )
    configured = [word for each in chosen["tags"] for word in each.split()]
    return list(dict.fromkeys([*configured, *(tag(name, value) for name, value in pairs if value)]))


def cut(payload: dict[str, Any], size: int) -> dict[str, Any]:
    """Return a payload of ``size`` bytes without what was said, and with a word about that."""
    said = f"[left out: {size} bytes are more than Datadog takes]"
    response = payload["response"]
    kept = {key: value for key, value in response.items() if not isinstance(value, list)}
    parameters = {key: value for key, value in payload["model_parameters"].items() if len(document.write(value)) < 1000}
    return {
        **payload,
        "messages": [{"role": "system", "content": said}],
        "response": kept,
        "model_parameters": parameters,
    }
