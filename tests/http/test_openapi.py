"""``/openapi.json`` lists exactly what is served."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from otelgw.config.settings import Auth, Settings
from otelgw.http.openapi import document
from otelgw.http.routes import GATED_GROUPS, ROUTES, match
from tests.http.caller import ask
from tests.servers.gateway import RunningGateway, deployment


def operations(settings: Settings) -> dict[tuple[str, str], Any]:
    return {
        (path, method.upper()): operation
        for path, methods in document(settings)["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_listed_and_every_listed_one_is_served() -> None:
    everything = Settings(pass_through=GATED_GROUPS)
    listed = {pair for pair in operations(everything) if not pair[0].startswith(("/health", "/metrics"))}

    assert listed == {(route.template, method) for route in ROUTES for method in route.methods - {"HEAD"}}
    for path, method in listed:
        assert match(re.sub(r"\{\w+\}", "x", path), method, GATED_GROUPS).route.template == path


@pytest.mark.parametrize("group", GATED_GROUPS)
def test_a_group_is_listed_only_where_it_is_passed_through(group: str) -> None:
    def shown(*named: str) -> bool:
        return any(path.startswith(f"/v1/{group}") for path, _ in operations(Settings(pass_through=named)))

    assert (shown(), shown(group)) == (False, True)


def test_operations_are_told_apart_and_name_their_parameters() -> None:
    found = operations(Settings(pass_through=GATED_GROUPS))
    ids = [operation["operationId"] for operation in found.values() if "operationId" in operation]

    assert len(ids) == len(set(ids))
    for (path, _), operation in found.items():
        named = [parameter["name"] for parameter in operation.get("parameters", ())]
        assert named == re.findall(r"\{(\w+)\}", path)


def test_a_key_is_described_only_where_one_is_needed() -> None:
    locked = Auth(master_key_sha256=hashlib.sha256(b"k").hexdigest())

    assert document(Settings())["security"] == []
    assert document(Settings(auth=locked))["security"] == [{"bearer": []}]


def test_the_document_is_served() -> None:
    with RunningGateway([deployment("http://upstream.example")]) as gateway:
        got = ask(gateway, path="/openapi.json", method="GET")

    assert (got.status, got.json()["openapi"]) == (200, "3.1.0")
    assert got.json() == document(gateway.settings)
