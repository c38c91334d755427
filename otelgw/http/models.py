"""``GET /v1/models`` and ``/v1/models/{id}``: the models of the config in OpenAI's shape, with their price."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from otelgw.errors import RequestRefused
from otelgw.http.answer import Send, gateway_headers, send_whole
from otelgw.http.exchange import Exchange
from otelgw.http.routes import Match
from otelgw.http.routing import Router

__all__ = ["answer_models", "describe"]


def describe(router: Router, alias: str) -> dict[str, Any]:
    """Return one model object; ``created`` is 0, because a config does not say when a model was made."""
    first = router.deployments(alias)[0]
    model: dict[str, Any] = {"id": alias, "object": "model", "created": 0, "owned_by": first.provider}
    if first.price is not None and first.price.source == "config":
        model["input_cost_per_token"] = first.price.input_per_token
        model["output_cost_per_token"] = first.price.output_per_token
    return model


async def answer_models(
    exchange: Exchange, router: Router, match: Match, send: Send, commit: Callable[[Exchange], None]
) -> None:
    """Answer the list, or one model.

    Raises:
        RequestRefused: 404 model_not_found.
    """
    wanted = match.parameters.get("model")
    document: dict[str, Any]
    grant = exchange.grant
    if wanted is None:
        aliases = [alias for alias in router.aliases if grant is None or grant.allows(alias)]
        document = {"object": "list", "data": [describe(router, alias) for alias in aliases]}
    elif grant is not None and not grant.allows(wanted):
        raise RequestRefused("model_not_found", f"Model {wanted[:200]!r} is not one of this key's.", param="model")
    elif router.deployments(wanted):
        document = describe(router, wanted)
    else:
        router.resolve(wanted)  # a wildcard's model exists without being listed
        document = {"id": wanted, "object": "model", "created": 0, "owned_by": "wildcard"}
    exchange.status = 200
    exchange.answered = True
    body = msgspec.json.encode(document)
    exchange.sent_bytes = len(body)
    exchange.response_headers = headers = gateway_headers(exchange)
    commit(exchange)
    await send_whole(send, 200, headers, body)
