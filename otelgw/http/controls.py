"""What a caller may say about the recording of its request, by header and by body, and what comes of it.

The stricter wins: of the config, the key's policy and the request. Only a caller whose policy has ``may_relax`` can ask
for more than the config records. What a destination itself is denied no request can give it. A control whose value
cannot be understood is refused, and until that is answered it counts as the strictest one.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from otelgw.config.settings import Destination, LoggingPolicy, Settings
from otelgw.errors import RequestRefused
from otelgw.http import splice
from otelgw.http.exchange import Exchange
from otelgw.http.headers import LABEL_PREFIXES
from otelgw.http.redaction import is_secret_header
from otelgw.keys.callbacks import answers
from otelgw.tracing.record import EVERYBODY, Audience
from otelgw_exporters import catalog, semconv

__all__ = ["Controls", "policy_of"]

log = logging.getLogger(__name__)

_LESS = (b"x-litellm-enable-message-redaction", b"litellm-enable-message-redaction")
_MORE = (b"litellm-disable-message-redaction", b"x-litellm-disable-message-redaction")
_DISABLED = (b"x-litellm-disable-callbacks", b"litellm-disable-callbacks")
_TAGS, _SPEND = b"x-litellm-tags", b"x-litellm-spend-logs-metadata"
_IDS = {b"x-litellm-trace-id": "trace_id", b"x-litellm-session-id": "session_id"}
_NAMED = frozenset({*_LESS, *_MORE, *_DISABLED, _TAGS, _SPEND, *_IDS})
_PREFIX = LABEL_PREFIXES[0][:-1]

_NO_LOG, _MESSAGES_OFF, _DISABLE = "no-log", "turn_off_message_logging", "x-litellm-disable-callbacks"
_FIELDS = frozenset({_NO_LOG, _MESSAGES_OFF, _DISABLE, "metadata", "litellm_metadata"})
_RAW = "log_raw_request"
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})

_LONGEST = 1024  # characters of a header that becomes an attribute

_MASTER = LoggingPolicy(may_relax=True)
_PLAIN = LoggingPolicy()


def policy_of(*, master: bool) -> LoggingPolicy:
    """Return the policy of a caller that has none of its own; ``master`` says that it has the master key."""
    return _MASTER if master else _PLAIN


class Controls:
    """The controls of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self._content = settings.tracing.content
        self._allow_no_log = settings.tracing.allow_no_log
        self._destinations = settings.destinations
        self._wanted = not settings.destinations or any(each.content for each in settings.destinations)
        self._required = any(each.required for each in settings.destinations)
        self._attributes = tuple((name.encode(), attribute) for name, attribute in settings.tracing.header_attributes)
        self._named = _NAMED | {name for name, _ in self._attributes}
        self._prefixes = tuple(
            dict.fromkeys((*LABEL_PREFIXES, *(row.header_prefix.encode() for row in catalog.ROWS if row.header_prefix)))
        )

    def begin(self, exchange: Exchange, policy: LoggingPolicy) -> RequestRefused | None:
        """Apply the caller's ``policy`` and the request's headers.

        Returns:
            What is wrong with a header, for a 400: the request is refused, and none of its content recorded.
        """
        exchange.policy = policy
        if policy.destinations is not None:
            only = tuple(name.lower() for name in policy.destinations)
            exchange.audience = Audience(only=only, without=exchange.audience.without)
        wrong: RequestRefused | None = None
        headers, findings = exchange.headers, exchange.findings
        if findings.controlled is None:
            findings.controlled = not self._named.isdisjoint(headers) or _PREFIX in b"\n".join(headers)
        if findings.controlled:
            try:
                self._read_headers(exchange, headers)
            except RequestRefused as error:
                exchange.less, wrong = True, error
        self._settle(exchange)
        if not policy.enabled:
            self._leave_out(exchange)
        return wrong

    def read_fields(self, exchange: Exchange, fields: splice.Fields) -> None:
        """Apply the controls in a body.

        Raises:
            RequestRefused: 400 invalid_request for a value that cannot be understood.
        """
        if _FIELDS.isdisjoint(fields):
            return
        less, exchange.less, exchange.content = exchange.less, True, False  # as long as it is not known
        no_log = _flag(splice.value_of(fields, _NO_LOG), _NO_LOG)
        turned_off = _flag(splice.value_of(fields, _MESSAGES_OFF), _MESSAGES_OFF)
        if _DISABLE in fields:
            self._disable(exchange, _names(splice.value_of(fields, _DISABLE)))
        for name in ("metadata", "litellm_metadata"):
            if name in fields and _RAW.encode() in bytes(fields[name]):
                metadata = splice.value_of(fields, name)
                exchange.wants_raw |= isinstance(metadata, dict) and _flag(metadata.get(_RAW), f"{name}.{_RAW}") is True
        exchange.less = less or turned_off is True
        exchange.more = exchange.more or (turned_off is False and exchange.policy.may_relax)
        self._settle(exchange)
        if no_log and self._allow_no_log:
            log.info("no-log request, skipping logging", extra={"call_id": exchange.call_id})
            self._leave_out(exchange)

    def unread(self, exchange: Exchange, body: bytes) -> None:
        """Take a body that is no JSON at its word as far as it can be seen: what names a control is not recorded."""
        if any(name.encode() in body for name in (_NO_LOG, _MESSAGES_OFF, _DISABLE)):
            exchange.less = True
            self._settle(exchange)

    def _read_headers(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> None:
        # Labels first: they are to be on the trace of a request that is refused for its controls, too.
        self._read_labels(exchange, headers)
        # A header may come more than once; the strictest counts, whichever is the last.
        relaxing = [_flag(text, _shown(name)) for name, text in _given(exchange, _MORE)]
        exchange.less |= any(_flag(text, _shown(name)) for name, text in _given(exchange, _LESS))
        exchange.more = bool(relaxing) and all(relaxing) and exchange.policy.may_relax
        for _, text in _given(exchange, _DISABLED):
            self._disable(exchange, _names(text))

    def _read_labels(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> None:
        metadata: dict[str, Any] = {}
        for name in headers:
            if name.startswith(self._prefixes) and not _redirects(name):
                prefix = next(each for each in self._prefixes if name.startswith(each))
                metadata[name[len(prefix) :].decode("latin-1").replace("-", "_")] = _text(headers, name)
        for name, key in _IDS.items():
            if headers.get(name):
                metadata[key] = _text(headers, name)
        if "tags" in metadata or _TAGS in headers:
            given = [tag for _, text in _given(exchange, (_TAGS,)) for tag in _tags(text)]
            metadata["tags"] = [*_tags(metadata.get("tags")), *given]
        if _SPEND in headers:
            spent = _json(headers[_SPEND])
            if isinstance(spent, dict):
                metadata["spend_logs_metadata"] = spent
            else:
                exchange.labels[semconv.OTELGW_LABELS_DROPPED] = 1
        if metadata:
            exchange.metadata = splice.scrubbed(metadata)
        for name, attribute in self._attributes:
            value = (_text(headers, name) or "")[:_LONGEST]
            if value:
                exchange.labels[attribute] = _tags(value) if attribute == semconv.OTELGW_TAGS else value

    def _disable(self, exchange: Exchange, names: Iterable[str]) -> None:
        """Leave destinations out of the request.

        Raises:
            RequestRefused: 400 invalid_request for a name that nobody knows: it may have meant any of them.
        """
        wanted = [name.lower() for name in names]
        known = {answer for each in self._destinations for answer in _answers(each)}
        known |= {answer for row in catalog.ROWS for answer in (row.name, row.params_key, *row.callbacks) if answer}
        for name in wanted:
            if name not in known and name not in catalog.KNOWN_CALLBACKS:
                near = difflib.get_close_matches(name, sorted(known | catalog.KNOWN_CALLBACKS), n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise RequestRefused(
                    "invalid_request", f"{_DISABLE}: there is no callback {name[:60]!r}{hint}", param=_DISABLE
                )
        audience = exchange.audience
        exchange.audience = Audience(only=audience.only, without=(*audience.without, *wanted), nobody=audience.nobody)

    def _leave_out(self, exchange: Exchange) -> None:
        """Have the request recorded for nobody but the destinations that require it, for these without content."""
        if self._required:
            exchange.audience = Audience(nobody=True)
            exchange.less = True
            self._settle(exchange)
        else:
            exchange.no_log = True

    def _settle(self, exchange: Exchange) -> None:
        """Decide on content by everything that is known."""
        audience, wanted = exchange.audience, self._wanted
        # Destinations that the config does not name; a key's policy chooses among those that it does.
        logging = exchange.grant.logging if exchange.grant is not None else ()
        if logging and not audience.nobody and any(answers(each.name).isdisjoint(audience.without) for each in logging):
            wanted = True
        elif audience is not EVERYBODY and (self._destinations or logging):
            wanted = any(each.content and audience.includes(_answers(each)) for each in self._destinations)
            if not self._required and not any(audience.includes(_answers(each)) for each in self._destinations):
                exchange.no_log = True
        configured = self._content and exchange.policy.content is not False
        exchange.content = (configured or exchange.more) and not exchange.less and wanted


def _redirects(name: bytes) -> bool:
    """Say whether a header is no label: a credential, or one that sends records elsewhere."""
    return is_secret_header(name) or name.decode("latin-1").replace("-", "_") in splice.REDIRECTING_FIELDS


def _answers(destination: Destination) -> tuple[str, ...]:
    """Return the names that ``destination`` answers to, in lower case."""
    return (destination.name.lower(), destination.type.lower(), *destination.callbacks)


def _flag(value: Any, name: str) -> bool | None:
    """Return the truth of a control's value; None where it says nothing.

    Raises:
        RequestRefused: 400 invalid_request: it is neither true nor false.
    """
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else "?"
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise RequestRefused("invalid_request", f"{name} must be true or false.", param=name)


def _names(value: Any) -> list[str]:
    """Return the names in a list, or in a text with commas between them.

    Raises:
        RequestRefused: 400 invalid_request: it is neither.
    """
    if isinstance(value, str):
        value = value.split(",")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestRefused(
            "invalid_request", f"{_DISABLE} must be a list of names, or names with commas between.", param=_DISABLE
        )
    return [item.strip() for item in value if item.strip()]


def _tags(text: str | None) -> list[str]:
    """Return the tags in a header: a JSON list, or texts with commas between them."""
    found = _json(text) if text and text.lstrip().startswith("[") else None
    parts = found if isinstance(found, list) else (text or "").split(",")
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def _json(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _given(exchange: Exchange, names: Sequence[bytes]) -> list[tuple[bytes, str]]:
    """Return the headers of these names, each as often as it came."""
    if exchange.headers.keys().isdisjoint(names):
        return []
    return [(name, _decoded(value)) for name, value in exchange.raw_headers if name in names]


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    """Return a header's value, the last one; None where it is not there."""
    value = headers.get(name)
    return None if value is None else _decoded(value)


def _decoded(value: bytes) -> str:
    """Return a header's value as text: UTF-8, or else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _shown(name: bytes) -> str:
    return name.decode("latin-1")
