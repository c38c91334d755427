"""Attributes that the spans of many requests share: one mapping for all of them, to be encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from otelgw.dialects.credentials import redacted_url
from otelgw.tracing.record import Attempt, Caller, Record, Target
from otelgw_exporters import semconv

__all__ = ["METHODS", "called", "endpoint", "put", "tried", "who"]

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""The methods that the conventions know; a span says ``HTTP`` and ``_OTHER`` for any other."""

_SHARED = 4096  # sets of attributes of each kind that are kept for the next spans like these


def endpoint(record: Record) -> Mapping[str, Any]:
    """Return what stands on the SERVER span of every request like this one."""
    return _endpoint_attributes(
        record.method,
        record.route,
        record.path,
        record.scheme,
        record.server_address,
        record.server_port,
        record.http_version,
        record.user_agent,
        record.status,
    )


@lru_cache(maxsize=_SHARED)
def _endpoint_attributes(
    method: str,
    route: str,
    path: str,
    scheme: str,
    server_address: str,
    server_port: int,
    http_version: str,
    user_agent: str,
    status: int,
) -> Mapping[str, Any]:
    found: dict[str, Any] = {semconv.HTTP_REQUEST_METHOD: method if method in METHODS else "_OTHER"}
    if method not in METHODS:
        found[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = method
    put(
        found,
        (
            (semconv.HTTP_ROUTE, route),
            (semconv.URL_PATH, path),
            (semconv.URL_SCHEME, scheme),
            (semconv.SERVER_ADDRESS, server_address),
            (semconv.SERVER_PORT, server_port),
            (semconv.NETWORK_PROTOCOL_VERSION, http_version),
            (semconv.USER_AGENT_ORIGINAL, user_agent),
            (semconv.HTTP_RESPONSE_STATUS_CODE, status),
        ),
    )
    return found


@lru_cache(maxsize=_SHARED)
def called(target: Target, stream: bool) -> Mapping[str, Any]:
    """Return what stands on the generation's span whatever was asked."""
    found: dict[str, Any] = {semconv.GEN_AI_OPERATION_NAME: target.operation}
    put(
        found,
        (
            (semconv.GEN_AI_PROVIDER_NAME, target.provider),
            (semconv.OTELGW_MODEL_ID, target.deployment_id),
            (semconv.SERVER_ADDRESS, target.server_address),
            (semconv.SERVER_PORT, target.server_port),
            (semconv.GEN_AI_REQUEST_MODEL, target.model),
            (semconv.GEN_AI_REQUEST_STREAM, stream),
        ),
    )
    return found


def tried(attempt: Attempt) -> Mapping[str, Any]:
    """Return what stands on the span of every attempt like this one."""
    return _attempt_attributes(
        attempt.method,
        attempt.server_address,
        attempt.server_port,
        attempt.url,
        attempt.number,
        attempt.status,
        attempt.provider,
        attempt.model,
        attempt.retry_reason,
    )


@lru_cache(maxsize=_SHARED)
def _attempt_attributes(
    method: str,
    server_address: str,
    server_port: int,
    url: str,
    number: int,
    status: int,
    provider: str,
    model: str,
    retry_reason: str,
) -> Mapping[str, Any]:
    found: dict[str, Any] = {semconv.HTTP_REQUEST_METHOD: method if method in METHODS else "_OTHER"}
    put(
        found,
        (
            (semconv.SERVER_ADDRESS, server_address),
            (semconv.SERVER_PORT, server_port),
            (semconv.URL_FULL, redacted_url(url)),
            (semconv.HTTP_REQUEST_RESEND_COUNT, number - 1),
            (semconv.HTTP_RESPONSE_STATUS_CODE, status),
            (semconv.OTELGW_ATTEMPT_NUMBER, number),
            (semconv.OTELGW_ATTEMPT_PROVIDER, provider),
            (semconv.OTELGW_ATTEMPT_MODEL, model),
            (semconv.OTELGW_ATTEMPT_RETRY_REASON, retry_reason),
        ),
    )
    return found


@lru_cache(maxsize=_SHARED)
def who(alias: str, caller: Caller) -> Mapping[str, Any]:
    """Return what stands on every span of a caller's requests to a model."""
    found: dict[str, Any] = {}
    put(
        found,
        (
            (semconv.OTELGW_MODEL_ALIAS, alias),
            (semconv.OTELGW_KEY_HASH, caller.key_hash),
            (semconv.OTELGW_KEY_ALIAS, caller.key_alias),
            (semconv.OTELGW_KEY_USER_ID, caller.user_id),
            (semconv.OTELGW_KEY_USER_EMAIL, caller.user_email),
            (semconv.OTELGW_TEAM_ID, caller.team_id),
            (semconv.OTELGW_TEAM_ALIAS, caller.team_alias),
        ),
    )
    return found


def put(attributes: dict[str, Any], pairs: Iterable[tuple[str, Any]]) -> None:
    """Add what is known: an empty value is an unknown one."""
    attributes |= {key: value for key, value in pairs if value}
