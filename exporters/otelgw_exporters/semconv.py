"""Every attribute name that otelgw emits, once, and the older vocabularies a destination may ask for.

Spans are built in the newest vocabulary (``otel``): the OpenTelemetry GenAI semantic conventions of 2026-08-03 with two
later renames that are already shipped by instrumentations (``cache_write`` for ``cache_creation``, token counts per
modality), and the HTTP conventions 1.44. A destination that reads an older one names it (``otel-1.41``, ``otel-1.36``)
and gets a renamed copy; a name that the older vocabulary lacks is kept as it is, because an unknown attribute does no
harm and a lost one does.

Messages, system instructions and tool definitions are structured values (lists of mappings) on the shared span.
``json_string`` turns them into JSON text for destinations that read text. Both steps copy: the span that they are given
is shared by all destinations and is never changed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters.errors import DestinationConfigError

__all__ = [
    "BODIES",
    "CONTENT",
    "DIALECTS",
    "FORMS",
    "TABLES",
    "Profile",
    "json_string",
    "json_text",
    "profile",
    "profile_of",
    "with_attributes",
]

# General and HTTP conventions 1.44.
CLIENT_ADDRESS: Final = "client.address"
ERROR_TYPE: Final = "error.type"
HTTP_REQUEST_BODY_SIZE: Final = "http.request.body.size"
HTTP_REQUEST_HEADER: Final = "http.request.header."  # + lower-case name; a list of values
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_RESPONSE_BODY_SIZE: Final = "http.response.body.size"
HTTP_RESPONSE_HEADER: Final = "http.response.header."  # + lower-case name; a list of values
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SESSION_ID: Final = "session.id"
URL_FULL: Final = "url.full"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
USER_AGENT_ORIGINAL: Final = "user_agent.original"
USER_ID: Final = "user.id"

# GenAI conventions.
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_EMBEDDINGS_DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GEN_AI_PROMPT_VERSION: Final = "gen_ai.prompt.version"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_REQUEST_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID: Final = "gen_ai.request.previous_response.id"
GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
GEN_AI_USAGE_AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
# Not in the conventions; what Langfuse, Bifrost and LiteLLM read and write for a cost in USD.
GEN_AI_USAGE_COST: Final = "gen_ai.usage.cost"

OPENAI_API_TYPE: Final = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_RESPONSE_SYSTEM_FINGERPRINT: Final = "openai.response.system_fingerprint"

# Facts of the gateway, until the conventions have words for them.
OTELGW_ATTEMPTS: Final = "otelgw.attempts"
OTELGW_ATTEMPT_MODEL: Final = "otelgw.attempt.model"
OTELGW_ATTEMPT_NUMBER: Final = "otelgw.attempt.number"
OTELGW_ATTEMPT_PROVIDER: Final = "otelgw.attempt.provider"
OTELGW_ATTEMPT_REQUEST_ID: Final = "otelgw.attempt.request_id"  # the provider's id of the call
OTELGW_ATTEMPT_RETRY_REASON: Final = "otelgw.attempt.retry_reason"
OTELGW_ATTEMPT_TIME_TO_FIRST_BYTE: Final = "otelgw.attempt.time_to_first_byte"  # seconds
OTELGW_CALLER_SPAN_ID: Final = "otelgw.caller.span_id"  # where the caller's context is linked, not continued
OTELGW_CALLER_TRACE_ID: Final = "otelgw.caller.trace_id"
OTELGW_CALL_ID: Final = "otelgw.call_id"
OTELGW_CONTENT_CUT: Final = "otelgw.content.cut"  # names of the attributes that were too long for the destination
OTELGW_COST_AMOUNT: Final = "otelgw.cost.amount"
OTELGW_COST_CURRENCY: Final = "otelgw.cost.currency"  # ISO 4217
OTELGW_COST_SOURCE: Final = "otelgw.cost.source"  # provider, genai-prices, config
OTELGW_ERROR_MESSAGE: Final = "otelgw.error.message"  # on a SERVER span whose status a 4xx leaves unset
OTELGW_KEY_ALIAS: Final = "otelgw.key.alias"
OTELGW_KEY_HASH: Final = "otelgw.key.hash"
OTELGW_KEY_USER_EMAIL: Final = "otelgw.key.user_email"
OTELGW_KEY_USER_ID: Final = "otelgw.key.user_id"  # whose the key is; user.id is the end user, if there is one
OTELGW_LABELS_DROPPED: Final = "otelgw.labels.dropped"  # how many of the caller's labels were of no use, or too many
OTELGW_METADATA: Final = "otelgw.metadata."  # + the caller's key
OTELGW_MODEL_ALIAS: Final = "otelgw.model.alias"
OTELGW_MODEL_ID: Final = "otelgw.model.id"  # the deployment's id, as in the header x-otelgw-model-id
OTELGW_OVERHEAD_DURATION: Final = "otelgw.overhead.duration"  # seconds
OTELGW_RAW_REQUEST: Final = "otelgw.raw_request"  # the call of the upstream as a curl command, keys replaced
OTELGW_REDACTION_FAILED: Final = "otelgw.redaction.failed"  # what was said is left out, for it could not be redacted
OTELGW_REQUEST_BODY: Final = "otelgw.request.body"  # the captured JSON; absent where only a part is recorded
OTELGW_REQUEST_CREDENTIALS: Final = "otelgw.request.credentials"  # names of headers that carried any, no values
OTELGW_REQUEST_MEDIA_TYPE: Final = "otelgw.request.media_type"  # of a body that is recorded by its hash only
OTELGW_REQUEST_SHA256: Final = "otelgw.request.sha256"  # of the whole body, where only a part is recorded
OTELGW_REQUEST_TRUNCATED: Final = "otelgw.request.truncated"
OTELGW_RESPONSE_BODY: Final = "otelgw.response.body"  # the same; of a stream, the answer that it adds up to
OTELGW_RESPONSE_MEDIA_TYPE: Final = "otelgw.response.media_type"
OTELGW_RESPONSE_SHA256: Final = "otelgw.response.sha256"
OTELGW_RESPONSE_TRUNCATED: Final = "otelgw.response.truncated"
OTELGW_TAGS: Final = "otelgw.tags"
OTELGW_TEAM_ALIAS: Final = "otelgw.team.alias"
OTELGW_TEAM_ID: Final = "otelgw.team.id"
OTELGW_USAGE_SOURCE: Final = "otelgw.usage.source"  # provider, estimated, none
OTELGW_VIA: Final = "otelgw.via"  # of a resource: the instances that have passed the span on

REF: Final = "_ref"
"""The end of the name of an attribute that refers to the content of another, as OpenTelemetry's GenAI instrumentations
have it: ``gen_ai.input.messages_ref``."""

BODIES: Final = frozenset({OTELGW_REQUEST_BODY, OTELGW_RESPONSE_BODY})
"""What was said once more, as it was on the wire: for destinations that ask for it."""

CONTENT: Final = BODIES | {
    GEN_AI_INPUT_MESSAGES,
    GEN_AI_OUTPUT_MESSAGES,
    GEN_AI_SYSTEM_INSTRUCTIONS,
    GEN_AI_TOOL_DEFINITIONS,
    OTELGW_ERROR_MESSAGE,
    OTELGW_RAW_REQUEST,
}
"""The attributes that carry what was said or may quote it: the ones that redaction and content gates are about.

A span's status description may quote it too.
"""

_INT64: Final = 1 << 63
_STRUCTURED_DEPTH: Final = 24  # protobuf decoders stop at 100 nested messages; a level of ours takes up to four

_encode = msgspec.json.Encoder().encode
_SIMPLE: Final = frozenset({str, int, float, bool})

Form = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a vocabulary differs from the newest one. ``values`` applies to scalars and to the members of lists."""

    renames: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    doubles: frozenset[str] = frozenset()


_RENAMES_1_41 = {GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: "gen_ai.usage.cache_creation.input_tokens"}

DIALECTS: Mapping[str, _Dialect] = {
    "otel": _Dialect(),
    "otel-1.41": _Dialect(renames=_RENAMES_1_41, doubles=frozenset({GEN_AI_REQUEST_TOP_K})),
    "otel-1.36": _Dialect(
        renames=_RENAMES_1_41
        | {
            GEN_AI_PROVIDER_NAME: "gen_ai.system",
            OPENAI_REQUEST_SERVICE_TIER: "gen_ai.openai.request.service_tier",
            OPENAI_RESPONSE_SERVICE_TIER: "gen_ai.openai.response.service_tier",
            OPENAI_RESPONSE_SYSTEM_FINGERPRINT: "gen_ai.openai.response.system_fingerprint",
        },
        values={
            GEN_AI_PROVIDER_NAME: {"x_ai": "xai"},
            GEN_AI_RESPONSE_FINISH_REASONS: {"tool_call": "tool_calls"},
        },
        doubles=frozenset({GEN_AI_REQUEST_TOP_K}),
    ),
}
"""Attribute vocabularies by their name in the config (``semconv:``)."""

TABLES: Final = ("openinference", "traceloop")
"""Further ones, which have names of their own for nearly everything: tables in ``dialects``."""


def _as_json(value: Any) -> Any:
    """Return a structured value as JSON text; any other value as it is."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if kind is list and value:
        if type(value[0]) is dict:  # messages, as nearly always
            return _json(value)
        if type(value[0]) is str and all(type(each) is str for each in value):
            return value
    if isinstance(value, Mapping) or (_is_list(value) and any(isinstance(v, Mapping) or _is_list(v) for v in value)):
        return _json(value)
    return value


def json_text(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8; never raises."""
    try:
        return _encode(value)
    except (TypeError, ValueError):  # a lone surrogate, an unusual key: escaped rather than lost
        return json.dumps(value, default=str).encode()
    except RecursionError:
        return b'"nested too deeply"'


def _json(value: Any) -> str:
    return json_text(value).decode()


def _as_structure(value: Any) -> Any:
    """Return ``value`` so that OTLP can carry it: integers fit 64 bits, nesting has an end."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, Mapping) or _is_list(value):
        return _bounded(value, _STRUCTURED_DEPTH)
    return value


def _bounded(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _bounded(item, depth - 1) for key, item in value.items()} if depth else _json(value)
    if _is_list(value):
        return [_bounded(item, depth - 1) for item in value] if depth else _json(value)
    if type(value) is int and not -_INT64 <= value < _INT64:
        return str(value)
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


FORMS: Mapping[str, Form] = {"json_string": _as_json, "structured": _as_structure}
"""How structured values leave, by the name a destination gives it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a destination reads: a vocabulary, a form for structured values, and whether it wants the captured bodies.

    Calling it gives a span's copy.
    """

    semconv: str = "otel"
    form: str = "json_string"
    bodies: bool = False

    def __call__(self, span: ReadableSpan) -> ReadableSpan:
        return with_attributes(span, self.attributes(span.attributes or {}))

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``attributes``, named in the newest vocabulary, as the destination reads them."""
        if self.semconv in TABLES:
            return _in_words_of(self.semconv, attributes, bodies=self.bodies)
        form = FORMS[self.form]
        shaped = {key: form(value) for key, value in attributes.items()}
        if not self.bodies:
            for key in BODIES:
                shaped.pop(key, None)
        dialect = DIALECTS[self.semconv]
        for key in dialect.doubles & shaped.keys():
            if type(shaped[key]) is int:  # of another application it may be anything
                shaped[key] = float(shaped[key])
        for key in dialect.values.keys() & shaped.keys():
            shaped[key] = _translated(shaped[key], dialect.values[key])
        if dialect.renames:
            return {dialect.renames.get(key, key): value for key, value in shaped.items()}
        return shaped


def _in_words_of(name: str, attributes: Mapping[str, Any], *, bodies: bool) -> dict[str, Any]:
    """Return ``attributes`` by a table of ``dialects``; which kind of span it is, they say themselves."""
    from otelgw_exporters import dialects
    from otelgw_exporters.reading import Reading

    made = dialects.TABLES[name].attributes(Reading(ReadableSpan("", attributes=attributes)))
    return made | {key: attributes[key] for key in BODIES & attributes.keys()} if bodies else made


def _translated(value: Any, words: Mapping[str, str]) -> Any:
    if _is_list(value):
        return [_translated(item, words) for item in value]
    return words.get(value, value) if isinstance(value, str) else value


@lru_cache(maxsize=32)
def profile(semconv: str = "otel", form: str = "json_string", *, bodies: bool = False) -> Profile:
    """Return the profile for a destination's ``semconv`` and content form, with or without the captured bodies.

    Raises:
        DestinationConfigError: a name that is not in ``DIALECTS`` or ``FORMS``.
    """
    if semconv not in DIALECTS and semconv not in TABLES:
        known = ", ".join((*DIALECTS, *TABLES))
        raise DestinationConfigError(f"semconv: {semconv!r} is not known; use one of {known}")
    if form not in FORMS:
        raise DestinationConfigError(f"content form {form!r} is not known; use one of {', '.join(FORMS)}")
    return Profile(semconv, form, bodies)


def profile_of(options: Mapping[str, Any]) -> Profile:
    """Return the profile that a destination's resolved options ask for: ``semconv``, ``form`` and ``bodies``."""
    return profile(options["semconv"], options["form"], bodies=options["bodies"])


def json_string(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of ``span`` whose structured attributes are JSON text, names unchanged."""
    return profile()(span)


def with_attributes(span: ReadableSpan, attributes: Mapping[str, Any]) -> ReadableSpan:
    """Return a copy of ``span`` with other attributes; ids, times, events, links and the count of drops stay."""
    changed = copy.copy(span)
    dropped = span.dropped_attributes
    if dropped:
        counted = BoundedAttributes(attributes=attributes)
        counted.dropped = dropped
        attributes = counted
    changed._attributes = attributes
    return changed
