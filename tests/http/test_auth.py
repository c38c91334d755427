"""Keys, and the guard of a gateway without one."""

from __future__ import annotations

import hashlib

import pytest

from otelgw.config.settings import Auth
from otelgw.errors import RequestRefused
from otelgw.http.auth import Authenticator, is_loopback

KEY = "sk-master"
WITH_KEY = Authenticator(Auth(master_key_sha256=hashlib.sha256(KEY.encode()).hexdigest()), "0.0.0.0")
WITHOUT = Authenticator(Auth(cors_allow_origins=("https://ui.example",), allowed_hosts=("gw.internal",)), "127.0.0.1")


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-master"},
        {b"authorization": b"bearer   sk-master "},
        {b"api-key": b"sk-master"},
        {b"x-api-key": b"sk-master"},
        {b"x-goog-api-key": b"sk-master"},
        {b"x-litellm-api-key": b"Bearer sk-master"},
        {b"authorization": b"Basic xyz", b"x-litellm-api-key": b"sk-master"},
    ],
)
def test_the_master_key_is_taken_from_every_usual_header(headers: dict[bytes, bytes]) -> None:
    caller = WITH_KEY.authenticate(headers)

    assert caller.authenticated
    assert caller.key_hash == hashlib.sha256(KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"Bearer "},
        {b"authorization": b"sk-master"},
        {b"authorization": b"Bearer sk-maste"},
        {b"authorization": b"Bearer sk-master2"},
        {b"cookie": b"key=sk-master"},
        {b"authorization": b"Bearer \xff\xfe"},
    ],
)
def test_everything_else_is_unauthorized(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(RequestRefused) as refused:
        WITH_KEY.authenticate(headers)

    assert refused.value.answer.status == 401
    assert "sk-m" not in refused.value.message


@pytest.mark.parametrize(
    "host", [b"127.0.0.1:4000", b"localhost", b"[::1]:4000", b"api.localhost:1", b"gw.internal", b""]
)
def test_without_a_key_local_names_are_served(host: bytes) -> None:
    assert WITHOUT.authenticate({b"host": host, b"authorization": b"Bearer anything"}).authenticated


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:4000", b"127.0.0.1.evil.example", b"10.0.0.1:4000"])
def test_without_a_key_a_foreign_host_is_refused(host: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        WITHOUT.authenticate({b"host": host})

    assert refused.value.answer.status == 403


def test_without_a_key_a_page_needs_its_origin_listed() -> None:
    assert WITHOUT.authenticate({b"host": b"localhost", b"origin": b"https://ui.example"})
    with pytest.raises(RequestRefused):
        WITHOUT.authenticate({b"host": b"localhost", b"origin": b"https://evil.example"})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_key_is_recognised_as_the_master_key_or_by_its_hash() -> None:
    known, master = WITH_KEY.recognise({b"authorization": b"Bearer sk-master"})
    other, nobody = WITH_KEY.recognise({b"x-api-key": b"sk-other"})

    assert known == hashlib.sha256(b"sk-master").hexdigest()
    assert master == WITH_KEY.authenticate({b"authorization": b"Bearer sk-master"})
    assert (other, nobody) == (hashlib.sha256(b"sk-other").hexdigest(), None)
    assert WITH_KEY.recognise({}) == ("", None)
    assert WITH_KEY.recognise({b"authorization": b"Bearer "}) == ("", None)
