"""From a model name to the deployments that serve it, in the order to try them.

Several deployments under one name share the load at random; a name with ``*`` matches any text in its place, and the
same text takes the place of ``*`` in the deployment's upstream model, as in LiteLLM.
"""

from __future__ import annotations

import difflib
import random
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

import httpx

from otelgw.config.settings import Deployment
from otelgw.errors import RequestRefused
from otelgw.http.client import Address, timeout_extension
from otelgw.http.headers import without_secrets
from otelgw.http.redaction import secrets_of
from otelgw.http.routes import Route
from otelgw.http.stream import rendered
from otelgw.tracing.record import Target

__all__ = ["Endpoint", "Router", "Upstream"]

_MAX_WILDCARD_MODELS = 1024
_LONGEST_NAME = 256  # characters of a model name that is worth searching for


class Endpoint(NamedTuple):
    """One URL of an upstream; ``text`` is the URL as it may be recorded."""

    url: httpx.URL
    text: str
    host: str
    port: int


class Upstream:
    """A deployment with what is derived from it once and used for every request."""

    __slots__ = (
        "_endpoints",
        "_targets",
        "alias",
        "answer_lines",
        "deployment",
        "secrets",
        "stream_timeout",
        "stream_usage",
        "timeout",
    )

    def __init__(self, deployment: Deployment, alias: str) -> None:
        if deployment.mock_response is not None:
            # Nothing is called, so nothing may look as if it were.
            deployment = replace(deployment, base_url="", urls={}, query="", auth=(), headers=(), transport="echo")
        self.deployment = deployment
        self.alias = alias
        self.secrets = secrets_of(deployment)
        self.stream_usage = deployment.stream_usage  # falls back to "as_is" once the upstream refuses the option
        timeouts = deployment.timeouts
        self.timeout = self.stream_timeout = timeout_extension(timeouts)
        if timeouts.stream_first_byte is not None:
            self.stream_timeout = timeout_extension(replace(timeouts, first_byte=timeouts.stream_first_byte))
        parts = urlsplit(deployment.base_url)
        facts = (
            (b"model-id", deployment.id),
            (b"model-group", alias),
            (b"model-api-base", f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""),
        )
        self.answer_lines = rendered(
            (prefix + name, value.encode())
            for name, value in facts
            for prefix in (b"x-litellm-", b"x-otelgw-")
            if value and value.isprintable() and value.isascii()
        )
        self._endpoints: dict[tuple[str, bytes], Endpoint] = {}
        self._targets: dict[str, Target] = {}

    def endpoint(self, path: str, query: bytes) -> Endpoint:
        """Return the URL for ``path`` (below /v1) with the deployment's query and the caller's.

        Raises:
            RequestRefused: 400 where they make no URL.
        """
        found = self._endpoints.get((path, query))
        if found is None:
            found = self._make_endpoint(path, query)
            if not query and path in self.deployment.urls:
                self._endpoints[path, query] = found
        return found

    def _make_endpoint(self, path: str, query: bytes) -> Endpoint:
        base = self.deployment.urls.get(path) or f"{self.deployment.base_url.rstrip('/')}/{path}"
        try:
            url = httpx.URL(base)
            own = [url.query, self.deployment.query.encode(), without_secrets(query, drop=True)]
            joined = b"&".join(part for part in own if part)
            if joined:
                url = url.copy_with(query=joined)
        except (httpx.InvalidURL, UnicodeError):
            raise RequestRefused(
                "invalid_request", "The path and the query make no URL; percent-encode them."
            ) from None
        text = str(url.copy_with(query=without_secrets(joined) or None, userinfo=b""))
        if not url.host:  # answered in process: there is no address to record
            return Endpoint(url, "", "", 0)
        return Endpoint(Address(url), text, url.host, url.port or (443 if url.scheme == "https" else 80))

    def target(self, route: Route) -> Target:
        """Return what a record says of this upstream on ``route``."""
        found = self._targets.get(route.template)
        if found is None:
            parts = urlsplit(self.deployment.base_url)
            found = self._targets[route.template] = Target(
                alias=self.alias,
                model=self.deployment.model,
                provider=self.deployment.otel_provider,
                deployment_id=self.deployment.id,
                api_base=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
                operation=route.operation,
                dialect=route.dialect,
                server_address=parts.hostname or "",
                server_port=_port(parts),
                price=self.deployment.price,
            )
        return found


def _port(parts: SplitResult) -> int:
    """Return the port of an address, 0 where there is no address."""
    if not parts.hostname:
        return 0
    return parts.port or (443 if parts.scheme == "https" else 80)


class Router:
    """All deployments of a configuration."""

    def __init__(self, deployments: Sequence[Deployment]) -> None:
        self._by_alias: dict[str, list[Upstream]] = {}
        self._patterns: list[tuple[re.Pattern[str], list[Upstream]]] = []
        self._expanded: OrderedDict[str, list[Upstream]] = OrderedDict()
        self._modelless: dict[Upstream, Upstream] = {}
        for deployment in deployments:
            self._by_alias.setdefault(deployment.alias, []).append(Upstream(deployment, deployment.alias))
        # The longest pattern is the most specific one.
        for alias in sorted((alias for alias in self._by_alias if "*" in alias), key=len, reverse=True):
            pattern = re.compile("(.*)".join(re.escape(part) for part in alias.split("*")))
            self._patterns.append((pattern, self._by_alias[alias]))

    @property
    def aliases(self) -> list[str]:
        """The names to show: a provider's bare-name patterns serve without being listed."""
        return sorted(
            alias for alias, upstreams in self._by_alias.items() if any(each.deployment.listed for each in upstreams)
        )

    def deployments(self, alias: str) -> list[Deployment]:
        return [upstream.deployment for upstream in self._by_alias.get(alias, ())]

    def resolve(self, model: str) -> list[Upstream]:
        """Return the upstreams for ``model`` in the order to try them.

        Raises:
            RequestRefused: 404 model_not_found with the nearest names.
        """
        found = self._by_alias.get(model) or self._expand(model)
        if found is None:
            raise RequestRefused("model_not_found", self._not_found(model), param="model")
        return found if len(found) == 1 else random.sample(found, len(found))

    def _expand(self, model: str) -> list[Upstream] | None:
        known = self._expanded.get(model)
        if known is not None or len(model) > _LONGEST_NAME:
            return known
        for pattern, upstreams in self._patterns:
            match = pattern.fullmatch(model)
            if match is None:
                continue
            text = match.group(1)
            made = [Upstream(_filled(upstream.deployment, text), model) for upstream in upstreams]
            self._expanded[model] = made
            if len(self._expanded) > _MAX_WILDCARD_MODELS:
                self._expanded.popitem(last=False)
            return made
        return None

    def resolve_pass_through(self, model: str, provider: str) -> list[Upstream]:
        """Return the upstream of a call that is passed through: by ``model``, else by ``provider`` (a provider's or a
        model's name), else the only one configured.

        Raises:
            RequestRefused: 400 where none of these tells; 404 for an unknown model.
        """
        if model:
            return self.resolve(model)
        upstreams = [upstream for group in self._by_alias.values() for upstream in group]
        if provider:
            named = [u for u in upstreams if provider in {u.deployment.provider, u.alias}]
            if not named:
                raise RequestRefused(
                    "invalid_request",
                    f"x-otelgw-provider: {provider[:100]!r} is not configured. Configured: {self._providers()}.",
                    param="x-otelgw-provider",
                )
            return [self._without_model(named[0])]
        if len({_account(upstream.deployment) for upstream in upstreams}) == 1:
            return [self._without_model(upstreams[0])]
        raise RequestRefused(
            "invalid_request",
            "It is not clear which provider this call is for. Send `model`, or the header x-otelgw-provider with one "
            f"of: {self._providers()}.",
            param="model",
        )

    def _without_model(self, upstream: Upstream) -> Upstream:
        """Return ``upstream`` for a call that names no model: its record must not name one either, nor a price.

        Content is recorded only where every deployment of that account lets it be.
        """
        found = self._modelless.get(upstream)
        if found is None:
            deployment = upstream.deployment
            account = _account(deployment)
            each = [other.deployment for group in self._by_alias.values() for other in group]
            content = all(other.content for other in each if _account(other) == account)
            bare = replace(deployment, id="", alias="", model="", price=None, content=content)
            found = self._modelless[upstream] = Upstream(bare, "")
        return found

    def _providers(self) -> str:
        return ", ".join(sorted({u.deployment.provider for group in self._by_alias.values() for u in group})) or "none"

    def _not_found(self, model: str) -> str:
        near = difflib.get_close_matches(model[:_LONGEST_NAME], self.aliases, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "GET /v1/models lists the models."
        return f"Model {model[:200]!r} is not configured. {hint}"


def _account(deployment: Deployment) -> tuple[Any, ...]:
    return deployment.provider, deployment.base_url, deployment.auth


def _filled(deployment: Deployment, text: str) -> Deployment:
    """Return a wildcard deployment with ``text`` in the place of ``*``."""
    model = deployment.model.replace("*", text, 1)
    price = deployment.price
    if price is None:
        from otelgw.config.prices import resolve_price
        from otelgw.providers.catalog import find

        row = find(deployment.provider)
        price = resolve_price(row, model, deployment.model_info) if row is not None else None
    urls = {path: url.replace("*", quote(text, safe="")) for path, url in deployment.urls.items()}
    return replace(deployment, model=model, urls=urls, price=price)
