"""Which destinations a caller has of its own."""

from __future__ import annotations

from pathlib import Path

from otelgw.keys.directory import Directory
from otelgw.keys.table import Changes, Table
from otelgw.tenant_routes import Routes
from tests.servers.otlp import HttpReceiver
from tests.test_tenants import World, otlp, world

__all__ = ["world"]


def test_each_destination_of_an_owner_has_an_id_of_its_own_that_shows_no_credential(world: World) -> None:
    routes = Routes(world.settings.keys, Directory(world.settings.keys, world.store))
    receiver = HttpReceiver()
    with receiver:
        caller = world.caller(otlp(receiver, "canary-one"), otlp(receiver, "canary-two"))
        found = routes.of(caller)

    assert len({each.id for each in found}) == 2
    assert [routes.find(each.id) for each in found] == found
    assert "canary" not in str([each.id for each in found])
    assert {"otlp_http", "otel"} <= found[0].names
    assert found[0].host


def test_who_has_none_has_none_and_a_route_that_is_gone_is_not_found(world: World) -> None:
    routes = Routes(world.settings.keys, Directory(world.settings.keys, world.store))

    assert routes.of(world.caller()) == []
    assert routes.find("key:nobody/otlp_http/all") is None
    assert routes.find("team:nothing/otlp_http/all") is None


def test_a_destination_that_is_set_while_its_owner_is_known_holds_from_the_next_request_on(
    world: World, tmp_path: Path
) -> None:
    changes = Changes(tmp_path / "limits.table")
    routes = Routes(world.settings.keys, Directory(world.settings.keys, world.store), changes)
    caller = world.caller()
    assert (routes.of(caller), changes()) == ([], 0)
    table = Table(tmp_path / "limits.table")
    try:
        with HttpReceiver() as receiver:
            world.management.update_key({"key": caller.key_hash, "metadata": {"logging": [otlp(receiver)]}})
            table.changed()
            assert [each.callback.name for each in routes.of(caller)] == ["otlp_http"]
        world.management.update_key({"key": caller.key_hash, "metadata": {"logging": []}})
        table.changed()
        assert (routes.of(caller), changes()) == ([], 2)
    finally:
        changes.close()
        table.close()
