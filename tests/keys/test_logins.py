"""Failed logins are counted by address."""

from __future__ import annotations

import pytest

from otelgw.keys import logins
from otelgw.keys.logins import Logins


def fail(counted: Logins, address: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        counted.failed(address, now)


def test_an_address_fails_ten_times_and_has_to_wait() -> None:
    counted = Logins()
    fail(counted, "192.0.2.1", 9)
    assert counted.wait("192.0.2.1", 0.0) == 0
    fail(counted, "192.0.2.1", 1)

    assert counted.wait("192.0.2.1", 0.0) == pytest.approx(6.0)
    assert counted.wait("192.0.2.2", 0.0) == 0
    assert counted.wait("192.0.2.1", 6.1) == 0


def test_the_wait_does_not_grow_without_end() -> None:
    counted = Logins()
    fail(counted, "192.0.2.1", 10_000)

    assert counted.wait("192.0.2.1", 0.0) <= 70


def test_workers_share_what_an_address_may_fail() -> None:
    counted = Logins(workers=5)
    fail(counted, "192.0.2.1", 2)

    assert counted.wait("192.0.2.1", 0.0) > 0


@pytest.mark.parametrize(
    ("failed", "asked", "same"),
    [
        ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", True),
        ("2001:db8:1:1::1", "2001:db8:1:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("not an address", "not an address", True),
    ],
)
def test_an_ipv6_client_is_its_network(failed: str, asked: str, same: bool) -> None:
    counted = Logins()
    fail(counted, failed, 20)

    assert (counted.wait(asked, 0.0) > 0) is same


def test_addresses_beyond_number_do_not_fill_the_memory() -> None:
    counted = Logins()
    for number in range(10_000):
        counted.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)

    assert len(counted._failures) == logins._MOST
