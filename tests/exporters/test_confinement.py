"""A destination of a stranger's reaches public addresses only, takes nothing from the environment, uses no proxy."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw_exporters import catalog, options
from otelgw_exporters.confinement import Bounds, NotAllowed, confined, grpc_target, networks_of
from otelgw_exporters.delivery import Outcome
from tests.exporters.samples import generation
from tests.servers.otlp import GrpcReceiver, HttpReceiver

LOOPBACK = Bounds(networks_of(["127.0.0.0/8"]))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:808:808::1", "2001:0:7f00:1::",
        "localhost", "", "1", "0x7f.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_not_connected_to(address: str) -> None:
    assert not Bounds().allows(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are(address: str) -> None:
    assert Bounds().allows(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_allowed_in_every_ipv6_dress(address: ipaddress.IPv4Address) -> None:
    plain = Bounds().allows(str(address))
    number = int(address)

    assert Bounds().allows(f"::ffff:{address}") is plain
    assert Bounds().allows(str(ipaddress.IPv6Address((0x64FF9B << 96) | number))) is plain
    if not plain:
        assert not Bounds().allows(str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)))


def test_networks_that_the_operator_allows_are() -> None:
    within = Bounds(networks_of(["10.1.0.0/16", "fd00::/8"]))

    assert within.allows("10.1.2.3")
    assert within.allows("::ffff:10.1.2.3")
    assert within.allows("fd12::1")
    assert not within.allows("10.2.0.1")
    assert not within.allows("127.0.0.1")


def test_a_name_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"mixed.example": ["127.0.0.1", "8.8.8.8"], "inside.example": ["10.0.0.7", "::1"]}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    assert Bounds().resolve("mixed.example", 443) == ["8.8.8.8"]
    with pytest.raises(NotAllowed, match="public"):
        Bounds().resolve("inside.example", 443)
    assert grpc_target("mixed.example:4317", Bounds())[0] == "ipv4:8.8.8.8:4317"


Build = Callable[..., Any]


def deliver(kind: str, endpoint: str, within: Bounds | None) -> Outcome:
    exporter = None
    try:
        if within is None:
            exporter = catalog.build(kind, kind, {"endpoint": endpoint})
        else:
            with confined(within):
                exporter = catalog.build(kind, kind, {"endpoint": endpoint})
        return exporter.deliver([generation()], time.monotonic() + 10)
    finally:
        if exporter is not None:
            exporter.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_no_http_connection_is_made_to_a_neighbour(host: str) -> None:
    with HttpReceiver() as receiver:
        endpoint = f"http://{host}:{receiver.port}/v1/traces"
        outcome = deliver("otlp_http", endpoint, Bounds())

        assert {verdict.state for verdict in outcome.verdicts} == {"retry"}
        assert "public" in outcome.reason
        assert receiver.asked == []


def test_an_http_connection_to_an_allowed_network_is_made() -> None:
    with HttpReceiver() as receiver:
        outcome = deliver("otlp_http", receiver.endpoint, LOOPBACK)

        assert {verdict.state for verdict in outcome.verdicts} == {"done"}
        assert len(receiver.asked) == 1


def test_what_is_not_confined_goes_where_it_is_sent() -> None:
    with HttpReceiver() as receiver:
        assert deliver("otlp_http", receiver.endpoint, None).verdicts[0].state == "done"


def test_no_grpc_channel_is_made_to_a_neighbour() -> None:
    with GrpcReceiver() as receiver:
        with pytest.raises(NotAllowed):
            deliver("otlp_grpc", f"http://127.0.0.1:{receiver.port}", Bounds())
        assert receiver.asked == []


def test_a_grpc_channel_to_an_allowed_network_is_made_to_the_address_that_was_looked_at() -> None:
    with GrpcReceiver() as receiver:
        outcome = deliver("otlp_grpc", f"http://localhost:{receiver.port}", LOOPBACK)

        assert {verdict.state for verdict in outcome.verdicts} == {"done"}
        assert len(receiver.asked) == 1


def test_no_proxy_of_the_operators_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpReceiver() as receiver, HttpReceiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

        assert deliver("otlp_http", receiver.endpoint, LOOPBACK).verdicts[0].state == "done"
        assert (len(receiver.asked), proxy.asked) == (1, [])


def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=operator-canary")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://operator.example")
    row = catalog.row("otlp_http")

    with confined(Bounds()):
        assert options.from_environment(row) == {}
        assert options.resolve(row, {})["headers"] is None
    assert options.from_environment(row)["headers"] == {"authorization": "operator-canary"}


TENANTS = [row for row in catalog.ROWS if row.tenant or row.wire is not None]


@pytest.mark.parametrize("row", TENANTS, ids=lambda row: row.name)
def test_every_destination_that_tenants_may_have_keeps_to_its_bounds(
    row: catalog.Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    (url,) = [option.name for option in row.options if option.kind == "url"][:1]
    with HttpReceiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, receiver.origin)
        given = {option.name: "operator-canary" for option in row.options if option.required and option.kind == "text"}
        given[url] = receiver.origin.replace("http://", "http://key@") if url == "dsn" else receiver.origin
        if url == "dsn":
            given[url] += "/1"
        chosen = options.complete(row, given, {})
        try:
            with confined(Bounds()):
                exporter = catalog.build(row.name, row.name, chosen)
                outcome = exporter.deliver([generation()], time.monotonic() + 5)
                exporter.shutdown()
        except NotAllowed:
            return
        assert {verdict.state for verdict in outcome.verdicts} == {"retry"}
        assert receiver.asked == []
