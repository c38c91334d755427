"""Tenants' settings are encrypted, bound to their owner, and never shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw.keys.sealing import Sealer, SealError

SECRET = "sk-lf-canary"
SEALER = Sealer("a salt key")


def test_what_is_sealed_opens_for_its_owner() -> None:
    sealed = SEALER.seal({"langfuse_secret_key": SECRET}, "team:a")

    assert SECRET not in sealed
    assert SEALER.open(sealed, "team:a") == {"langfuse_secret_key": SECRET}
    assert sealed != SEALER.seal({"langfuse_secret_key": SECRET}, "team:a")


@pytest.mark.parametrize(
    ("sealer", "owner"), [(SEALER, "team:b"), (SEALER, "key:a"), (Sealer("another salt key"), "team:a")]
)
def test_it_opens_for_nobody_else(sealer: Sealer, owner: str) -> None:
    sealed = SEALER.seal({"k": SECRET}, "team:a")

    with pytest.raises(SealError, match="OTELGW_SALT_KEY") as refused:
        sealer.open(sealed, owner)
    assert SECRET not in str(refused.value)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80))
def test_what_was_never_sealed_is_refused_as_such(text: str) -> None:
    with pytest.raises(SealError):
        SEALER.open(text, "team:a")
    with pytest.raises(SealError):
        SEALER.open(f"v1.{text}", "team:a")


def test_a_changed_text_does_not_open() -> None:
    sealed = SEALER.seal({"k": "v"}, "team:a")
    for at in range(3, len(sealed), 7):
        # A letter of base64 whose bits differ in the upper ones: the last letter's lower bits mean nothing.
        changed = sealed[:at] + ("A" if sealed[at] not in "ABCDEFGHIJKLMNOP" else "z") + sealed[at + 1 :]
        with pytest.raises(SealError):
            SEALER.open(changed, "team:a")


def test_without_a_salt_key_nothing_is_sealed_and_it_says_what_to_do() -> None:
    with pytest.raises(SealError, match=r"OTELGW_SALT_KEY \(or LITELLM_SALT_KEY\)"):
        Sealer("").seal({"k": "v"}, "team:a")
