"""Azure's URLs."""

from __future__ import annotations

import pytest

from otelgw.providers.azure import endpoints

RESOURCE = "https://r.openai.azure.com"


@pytest.mark.parametrize("version", ["", "v1"])
@pytest.mark.parametrize("base", [RESOURCE, f"{RESOURCE}/openai", f"{RESOURCE}/openai/v1"])
def test_the_v1_api_takes_the_deployment_as_model(base: str, version: str) -> None:
    assert endpoints(base, "d", version) == (f"{RESOURCE}/openai/v1", {}, "")


def test_the_preview_of_v1_is_asked_for_by_query() -> None:
    assert endpoints(RESOURCE, "d", "preview").query == "api-version=preview"


@pytest.mark.parametrize("base", [RESOURCE, f"{RESOURCE}/openai", f"{RESOURCE}/openai/deployments/d"])
def test_a_dated_version_has_the_deployment_in_the_path(base: str) -> None:
    found = endpoints(base, "d", "2024-10-21")
    assert found.base_url == f"{RESOURCE}/openai"
    assert found.urls["embeddings"] == f"{RESOURCE}/openai/deployments/d/embeddings"
    assert found.query == "api-version=2024-10-21"
    assert "responses" not in found.urls


def test_a_deployment_in_the_address_stays() -> None:
    found = endpoints(f"{RESOURCE}/openai/deployments/fixed", "other", "2024-10-21")
    assert found.urls["chat/completions"] == f"{RESOURCE}/openai/deployments/fixed/chat/completions"


def test_a_name_cannot_leave_its_path_segment_and_a_wildcard_stays() -> None:
    assert "/deployments/a%2F..%3Fb/chat" in endpoints(RESOURCE, "a/..?b", "2024-10-21").urls["chat/completions"]
    assert "/deployments/*/chat" in endpoints(RESOURCE, "*", "2024-10-21").urls["chat/completions"]


def test_a_proxys_path_is_kept() -> None:
    assert endpoints("https://p.example/openai-proxy", "d", "").base_url == "https://p.example/openai-proxy/openai/v1"
