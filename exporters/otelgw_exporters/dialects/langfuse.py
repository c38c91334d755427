"""Langfuse: names of its OTLP endpoint, and what LiteLLM's callers say to it in a request's metadata.

Langfuse's own names win over every other vocabulary there. Usage is given in parts that add up, because a server
subtracts the parts of OpenTelemetry's inclusive counts only where it knows their newest names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.dialects.dialect import MESSAGES, Dialect, Value, field_of
from otelgw_exporters.reading import Reading, as_text, iso_time

__all__ = ["LANGFUSE", "generation_name", "observation_usage", "prompt_link", "trace_id", "trace_name"]

_HEX_TRACE = re.compile(r"[0-9a-f]{32}")
_HEX_SPAN = re.compile(r"[0-9a-f]{16}")
_TRUE = frozenset({"true", "1"})
# What steers Langfuse is no metadata there.
_STEERING = frozenset(
    {
        *(
            "generation_name",
            "trace_name",
            "trace_id",
            "existing_trace_id",
            "trace_user_id",
            "trace_version",
            "version",
        ),
        *("version", "trace_release", "release", "parent_observation_id", "prompt", "log_raw_request", "mask_input"),
        *("mask_output", "update_trace_keys", "trace_metadata", "debug_langfuse"),
    }
)


def trace_id(reading: Reading) -> int | None:
    """Return the trace that the caller's metadata names; None where it names none.

    32 hex digits are the id itself. Anything else becomes the first 32 hex digits of its SHA-256, as Langfuse's SDKs
    make ids of seeds; of a key or a team it is made with its name, so that no tenant meets another's trace.
    """
    named = reading.metadata.get("existing_trace_id") or reading.metadata.get("trace_id")
    if not isinstance(named, str | int) or isinstance(named, bool) or named == "":
        return None
    text = str(named).lower()
    if _HEX_TRACE.fullmatch(text) and int(text, 16):
        return int(text, 16)
    tenant = reading.text(semconv.OTELGW_TEAM_ID) or reading.text(semconv.OTELGW_KEY_HASH)
    seed = f"{tenant}:{named}" if tenant else str(named)
    return int(hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:32], 16)


def parent_id(reading: Reading) -> int | None:
    """Return the observation that the caller's metadata names as the parent."""
    named = reading.metadata.get("parent_observation_id")
    found = isinstance(named, str) and _HEX_SPAN.fullmatch(named.lower()) and int(named, 16)
    return found or None


def generation_name(reading: Reading) -> str | None:
    return reading.text(f"{semconv.OTELGW_METADATA}generation_name")


def trace_name(reading: Reading) -> str | None:
    """Return the trace's name; none where the caller goes on with a trace that has one."""
    if reading.metadata.get("existing_trace_id"):
        return None
    return reading.text(f"{semconv.OTELGW_METADATA}trace_name") or generation_name(reading)


def prompt_link(reading: Reading) -> tuple[str, int] | None:
    """Return name and version of the prompt in Langfuse that the call used."""
    given = reading.metadata_object("prompt")
    name, version = (given.get("name"), given.get("version")) if isinstance(given, dict) else (None, None)
    name = name or reading.get(semconv.GEN_AI_PROMPT_NAME)
    version = version if version is not None else reading.get(semconv.GEN_AI_PROMPT_VERSION)
    if isinstance(name, str) and name and str(version).isdecimal():
        return name, int(str(version))
    return None


def observation_usage(reading: Reading) -> dict[str, int] | None:
    """Return the usage in parts: no token is in two of them, ``total`` apart."""
    if reading.total_tokens is None:
        return None
    read, write, thought = reading.cache_read_tokens, reading.cache_write_tokens, reading.reasoning_tokens
    parts = {
        "input": max(0, (reading.input_tokens or 0) - (read or 0) - (write or 0)),
        "input_cached_tokens": read,
        "input_cache_creation": write,
        "output": max(0, (reading.output_tokens or 0) - (thought or 0)),
        "output_reasoning_tokens": thought,
    }
    found = {name: count for name, count in parts.items() if count is not None}
    return found | {"total": reading.total_tokens}


def _cost(reading: Reading) -> str | None:
    if reading.cost is None:
        return None
    parts = reading.cost_parts
    known = {} if parts is None else {"input": parts[0], "output": parts[1]}
    return as_text(known | {"total": reading.cost})


def _first_token(reading: Reading) -> str | None:
    at = reading.first_token_ns
    return None if at is None else iso_time(at)


def _unless(switch: str, name: str) -> Value:
    """Return what was said, unless the caller's metadata asks to leave it out."""

    def read(reading: Reading) -> Any:
        masked = str(reading.metadata.get(switch, "")).lower() in _TRUE
        value = getattr(reading, name)
        return None if masked else value

    return read


def _prompt(part: int) -> Value:
    def read(reading: Reading) -> Any:
        link = prompt_link(reading)
        return link[part] if link else None

    return read


def _metadata(reading: Reading) -> Iterator[tuple[str, Any]]:
    kind = "trace" if reading.role == "server" else "observation"
    for key, value in reading.metadata.items():
        if key not in _STEERING:
            yield f"langfuse.{kind}.metadata.{key}", value
    held = reading.metadata_object("trace_metadata")
    for key, value in (held if isinstance(held, dict) else {}).items():
        yield f"langfuse.trace.metadata.{key}", value if isinstance(value, str | int | float) else as_text(value)
    raw = reading.text("otelgw.raw_request")
    if raw and reading.role == "generation":
        yield "langfuse.observation.metadata.raw_request", raw


def _one_of(*keys: str) -> Value:
    def read(reading: Reading) -> Any:
        found = (reading.text(semconv.OTELGW_METADATA + key) for key in keys)
        return next((value for value in found if value), None)

    return read


def _user(reading: Reading) -> str | None:
    return reading.text(f"{semconv.OTELGW_METADATA}trace_user_id") or reading.user


def _level(reading: Reading) -> str | None:
    return None if reading.error is None else "ERROR"


LANGFUSE = Dialect(
    every={
        "langfuse.trace.name": trace_name,
        "langfuse.user.id": _user,
        "langfuse.session.id": field_of("session"),
        "langfuse.trace.tags": field_of("tags"),
        "langfuse.version": _one_of("trace_version", "version"),
        "langfuse.release": _one_of("trace_release", "release"),
        "langfuse.observation.type": "span",
        "langfuse.observation.level": _level,
        "langfuse.observation.status_message": field_of("error"),
    },
    more=(_metadata,),
    generation={
        "langfuse.observation.type": lambda reading: (
            "embedding" if reading.get(semconv.GEN_AI_OPERATION_NAME) == "embeddings" else "generation"
        ),
        "langfuse.observation.model.name": field_of("model"),
        "langfuse.observation.model.parameters": lambda reading: as_text(reading.parameters or None),
        "langfuse.observation.usage_details": lambda reading: as_text(observation_usage(reading)),
        "langfuse.observation.cost_details": _cost,
        "langfuse.observation.completion_start_time": _first_token,
        "langfuse.observation.prompt.name": _prompt(0),
        "langfuse.observation.prompt.version": _prompt(1),
    },
    content={
        "langfuse.observation.input": _unless("mask_input", "input_text"),
        "langfuse.observation.output": _unless("mask_output", "output_text"),
    },
    dropped=MESSAGES,
    marker="langfuse.observation.type",
)
