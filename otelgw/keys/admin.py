"""``/key/…`` and ``/team/…``: keys and teams over HTTP, by LiteLLM's names, for the holder of the master key only.

The bodies hold keys and credentials, so nothing of them is recorded; what is wrong with one is said without its values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from otelgw.errors import GatewayError, RequestRefused
from otelgw.http.answer import Send, gateway_headers, send_whole
from otelgw.http.body import Receive, read
from otelgw.http.exchange import Exchange
from otelgw.http.routes import Match
from otelgw.keys.database import Duplicate, StoreError
from otelgw.keys.gatekeeper import Gatekeeper
from otelgw.keys.sealing import SealError
from otelgw_exporters.errors import DestinationError

if TYPE_CHECKING:
    from otelgw.keys.management import Management

__all__ = ["administer"]

log = logging.getLogger(__name__)

_BODY = 1024 * 1024  # bytes


class _Request(NamedTuple):
    team_id: str
    query: Mapping[str, str]
    body: Any


_Operation = Callable[["Management", _Request], Any]

_OPERATIONS: Mapping[tuple[str, str], _Operation] = {
    ("POST", "/key/generate"): lambda keys, asked: keys.generate_key(asked.body),
    ("POST", "/key/update"): lambda keys, asked: keys.update_key(asked.body),
    ("POST", "/key/delete"): lambda keys, asked: keys.delete_keys(asked.body),
    ("GET", "/key/info"): lambda keys, asked: keys.key_info(asked.query),
    ("GET", "/key/list"): lambda keys, asked: keys.list_keys(asked.query),
    ("POST", "/team/new"): lambda keys, asked: keys.new_team(asked.body),
    ("POST", "/team/update"): lambda keys, asked: keys.update_team(asked.body),
    ("POST", "/team/delete"): lambda keys, asked: keys.delete_teams(asked.body),
    ("GET", "/team/info"): lambda keys, asked: keys.team_info(asked.query),
    ("GET", "/team/list"): lambda keys, asked: keys.list_teams(asked.query),
    ("POST", "/team/{id}/callback"): lambda keys, asked: keys.add_callback(asked.team_id, asked.body),
    ("GET", "/team/{id}/callback"): lambda keys, asked: keys.callbacks(asked.team_id),
    ("POST", "/team/{id}/disable_logging"): lambda keys, asked: keys.disable_logging(asked.team_id),
}


async def administer(
    keys: Gatekeeper | None,
    exchange: Exchange,
    match: Match,
    receive: Receive,
    send: Send,
    commit: Callable[[Exchange], None],
) -> None:
    """Do what an administrator asks for.

    Raises:
        RequestRefused: 400, 403 without the master key, 404.
        GatewayError: 503: the store of keys cannot be used.
    """
    if keys is None:
        raise RequestRefused("forbidden", "Keys and teams need general_settings.master_key.")
    if not keys.auth.is_master(exchange.caller):
        raise RequestRefused("forbidden", "Only the holder of the master key may look at or change keys and teams.")
    asked = await _asked(keys, exchange, match, receive)
    operation = _OPERATIONS[exchange.method, match.route.template]
    document = await keys.call(_run, keys, operation, asked)
    if exchange.method != "GET":
        keys.changed()
    body = msgspec.json.encode(document)
    exchange.status = 200
    exchange.answered = True
    exchange.sent_bytes = len(body)
    exchange.response_headers = headers = [
        (b"cache-control", b"no-store"),
        *gateway_headers(exchange),
    ]
    commit(exchange)
    await send_whole(send, 200, headers, body)


def _run(keys: Gatekeeper, operation: _Operation, asked: _Request) -> Any:
    """Run in the store's thread, where checking a body delays nobody either."""
    from otelgw.keys.management import Management

    try:
        return operation(Management(keys.directory, keys.settings.keys), asked)
    except (Duplicate, SealError, DestinationError) as error:
        raise RequestRefused("invalid_request", str(error)) from None
    except StoreError as error:
        log.error("keys cannot be changed: %s", error)  # noqa: TRY400 - the message says what
        raise GatewayError(
            "keys_unavailable", "The store of keys cannot be used; see the log.", retry_after=5
        ) from None


async def _asked(keys: Gatekeeper, exchange: Exchange, match: Match, receive: Receive) -> _Request:
    raw = await read(receive, exchange.headers, _BODY, keys.settings.limits)
    exchange.body_read = True
    body: Any = {}
    if raw.strip():
        try:
            body = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RequestRefused("invalid_json", "The body is no JSON.") from None
    query = dict(parse_qsl(exchange.scope.get("query_string", b"").decode("latin-1")))
    return _Request(match.parameters.get("id", ""), query, body)
