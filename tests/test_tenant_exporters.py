"""The exporters of keys' and teams' own destinations: which are open, and that none is left."""

from __future__ import annotations

import time

from otelgw.config.settings import Keys
from otelgw.keys.schema import Callback
from otelgw.tenant_exporters import Exporters
from otelgw.tenant_routes import Route
from otelgw_exporters.delivery import Exporter
from tests.exporters.samples import span
from tests.servers.otlp import HttpReceiver

KEYS = Keys(allow_networks=("127.0.0.0/8",), tenants=True, exporters=2)


def route(receiver: HttpReceiver, name: str = "one", secret: str = "a") -> Route:
    variables = {"endpoint": receiver.endpoint, "headers": f"authorization={secret}"}
    return Route(f"key:k/{name}", "key:k", Callback("otlp_http", variables=variables), "127.0.0.1")


def delivers(exporter: Exporter) -> bool:
    return all(each.state == "done" for each in exporter.deliver([span()], time.monotonic() + 10).verdicts)


def test_a_route_keeps_its_exporter_until_its_settings_change() -> None:
    exporters = Exporters(KEYS, lambda _: False)
    with HttpReceiver() as receiver:
        first, again = exporters.of(route(receiver)), exporters.of(route(receiver))
        changed = exporters.of(route(receiver, secret="b"))

        assert first is again
        assert changed is not first
        assert (delivers(first), delivers(changed)) == (False, True)
        assert [asked.headers["authorization"] for asked in receiver.asked] == ["b"]
    exporters.close()


def test_the_one_that_was_not_used_for_longest_is_closed_unless_it_is_in_use() -> None:
    busy = {"key:k/one"}
    exporters = Exporters(KEYS, busy.__contains__)
    with HttpReceiver() as receiver:
        one, two, _ = (exporters.of(route(receiver, name)) for name in ("one", "two", "three"))

        assert len(exporters) == 2
        assert (delivers(one), delivers(two)) == (True, False)
    exporters.close()


def test_one_that_is_made_while_all_are_closed_is_closed_too() -> None:
    exporters = Exporters(KEYS, lambda _: True)
    with HttpReceiver() as receiver:
        exporters.close()
        late = exporters.of(route(receiver))

        assert not delivers(late)
        assert len(exporters) == 0
        assert receiver.asked == []
