"""The route table: which paths exist, what they are upstream, and how a request on them is traced.

Every path also exists without its ``/v1``. ``Route.template`` is the span's ``http.route``: its cardinality is that of
this table, whatever callers send.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from otelgw.errors import RequestRefused

__all__ = [
    "ADMIN",
    "ADMIN_ROUTES",
    "DEPLOYMENTS",
    "GATED_GROUPS",
    "LOCAL",
    "MODEL",
    "RELAYED",
    "ROUTES",
    "Match",
    "Route",
    "check_path",
    "match",
    "plain",
]

MODEL = "model"  # JSON with a `model`: routed by it
RELAYED = "relayed"  # passed through; its provider is found as routing.resolve_pass_through says
LOCAL = "local"  # answered by the gateway
ADMIN = "admin"  # keys and teams, for the holder of the master key

POST = frozenset({"POST"})
GET = frozenset({"GET", "HEAD"})
GET_ONLY = frozenset({"GET"})
ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Route(NamedTuple):
    """One row. ``operation`` is the ``gen_ai.operation.name``, empty where the call is no generation."""

    template: str
    methods: frozenset[str]
    kind: str
    operation: str = ""
    dialect: str = ""
    group: str = ""  # only where general_settings.pass_through names it
    large: bool = False  # bodies up to limits.file_body


class Match(NamedTuple):
    """A matched route and the path below ``/v1``, as it goes upstream."""

    route: Route
    upstream_path: str
    parameters: dict[str, str]


GATED_GROUPS = ("files", "batches", "uploads", "vector_stores", "fine_tuning")

_OPENAI: tuple[Route, ...] = (
    Route("/v1/chat/completions", POST, MODEL, "chat", "openai_chat"),
    Route("/v1/completions", POST, MODEL, "text_completion", "openai_completions"),
    Route("/v1/embeddings", POST, MODEL, "embeddings", "openai_embeddings"),
    Route("/v1/models", GET, LOCAL),
    Route("/v1/models/{model}", GET, LOCAL),
    Route("/v1/responses", POST, RELAYED, "chat", "openai_responses"),
    Route("/v1/responses/{id}", frozenset({"GET", "HEAD", "DELETE"}), RELAYED),
    Route("/v1/responses/{id}/cancel", POST, RELAYED),
    Route("/v1/responses/{id}/input_items", GET, RELAYED),
    Route("/v1/responses/input_tokens", POST, RELAYED),
    Route("/v1/images/generations", POST, RELAYED, "generate_content", "openai_media"),
    Route("/v1/images/edits", POST, RELAYED, "generate_content", "openai_media", large=True),
    Route("/v1/images/variations", POST, RELAYED, "generate_content", "openai_media", large=True),
    Route("/v1/audio/speech", POST, RELAYED, "generate_content", "openai_media"),
    Route("/v1/audio/transcriptions", POST, RELAYED, "generate_content", "openai_media", large=True),
    Route("/v1/audio/translations", POST, RELAYED, "generate_content", "openai_media", large=True),
    Route("/v1/moderations", POST, RELAYED, "", "openai_media"),
    Route("/v1/rerank", POST, RELAYED, "", "openai_media"),
    *(
        Route(template, ANY, RELAYED, group=group, large=group in {"files", "uploads"})
        for group in GATED_GROUPS
        for template in (f"/v1/{group}", f"/v1/{group}/{{path}}")
    ),
)

# Azure's client names the model in the path; behind it the call is the same.
DEPLOYMENTS = "/openai/deployments/{model}/"
ROUTES: tuple[Route, ...] = _OPENAI + tuple(
    route._replace(template=DEPLOYMENTS + route.template.removeprefix("/v1/"))
    for route in _OPENAI
    if route.kind == MODEL
)
ADMIN_ROUTES: tuple[Route, ...] = (
    *(Route(f"/key/{name}", POST, ADMIN) for name in ("generate", "update", "delete")),
    *(Route(f"/key/{name}", GET_ONLY, ADMIN) for name in ("info", "list")),
    *(Route(f"/team/{name}", POST, ADMIN) for name in ("new", "update", "delete")),
    *(Route(f"/team/{name}", GET_ONLY, ADMIN) for name in ("info", "list")),
    Route("/team/{id}/callback", frozenset({"GET", "POST"}), ADMIN),
    Route("/team/{id}/disable_logging", POST, ADMIN),
)
"""Keys and teams. They exist at the root only, where LiteLLM has them."""

_BY_PATH: dict[str, Route] = {
    path: route for route in ROUTES if "{" not in route.template for path in (route.template, route.template[3:])
} | {route.template: route for route in ADMIN_ROUTES if "{" not in route.template}


def _pattern(template: str) -> re.Pattern[str]:
    path = template.replace("{path}", "(?P<path>.+)").replace("{model}", "(?P<model>.+)")
    path = path.replace("{id}", "(?P<id>[^/]+)")
    return re.compile(f"(?:/v1)?{path[3:]}" if template.startswith("/v1/") else path)


_PATTERNS: tuple[tuple[re.Pattern[str], Route], ...] = tuple(
    (_pattern(route.template), route) for route in (*ROUTES, *ADMIN_ROUTES) if "{" in route.template
)
# Administration of somebody's account upstream is never reachable through the gateway's key.
_NEVER = re.compile(r"(?:/v1)?/organi[sz]ations?(?:/|$)")
_DOT_SEGMENT = re.compile(rb"/\.{1,2}(?:[/;]|$)")
_ENCODED = re.compile(rb"%(?:2[ef]|5c|00)|\\", re.IGNORECASE)


def check_path(raw_path: bytes) -> None:
    """Refuse dot segments, encoded slashes and dots, and backslashes: they mean one path here and another upstream.

    Raises:
        RequestRefused: 400 invalid_request.
    """
    if _DOT_SEGMENT.search(raw_path) or _ENCODED.search(raw_path) or b"//" in raw_path:
        raise RequestRefused(
            "invalid_request",
            "The path has a dot segment, an empty segment, or an encoded slash, dot or backslash. "
            "Send the plain path, for example /v1/chat/completions.",
        )


def match(path: str, method: str, pass_through: tuple[str, ...], raw_path: bytes = b"") -> Match:
    """Return the route for ``path``. ``raw_path`` is the path as it came: what is percent-encoded in it has to go
    upstream as it is, or ``%3F`` would begin a query there.

    Raises:
        RequestRefused: 404 not_found (with what to do), 405 method_not_allowed.
    """
    route = _BY_PATH.get(path)
    parameters: dict[str, str] = {}
    if route is None:
        for pattern, candidate in _PATTERNS:
            found = pattern.fullmatch(path)
            if found is not None:
                route, parameters = candidate, found.groupdict()
                break
    if route is None or _NEVER.match(path):
        raise RequestRefused("not_found", f"No route {method} {path[:200]}. GET /openapi.json lists the routes.")
    if route.group and route.group not in pass_through:
        raise RequestRefused(
            "not_found",
            f"{route.template} is not passed through. Name it in the config: "
            f"general_settings.pass_through: [{route.group}].",
        )
    if method not in route.methods:
        raise RequestRefused("method_not_allowed", f"{route.template} takes {', '.join(sorted(route.methods))}.")
    if route.template.startswith(DEPLOYMENTS):
        return Match(route, route.template.removeprefix(DEPLOYMENTS), parameters)
    sent = raw_path.decode("latin-1") if parameters and raw_path else path
    return Match(route, sent[4:] if sent.startswith("/v1/") else sent[1:], parameters)


_PLAIN: dict[tuple[str, bytes, str], Match] = {
    (path, path.encode(), method): match(path, method, ())
    for path, route in _BY_PATH.items()
    if not route.group
    for method in route.methods
}


def plain(path: str, raw_path: bytes, method: str) -> Match | None:
    """Return what ``check_path`` and ``match`` would find out, for nearly every request: where the path is one without
    parameters that needs no permission, and came as it is; else None."""
    return _PLAIN.get((path, raw_path, method))
