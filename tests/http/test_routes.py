"""The route table."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from otelgw.errors import RequestRefused
from otelgw.http.routes import ADMIN_ROUTES, GATED_GROUPS, ROUTES, Route, check_path, match, plain

FIXED = [route for route in ROUTES if "{" not in route.template and not route.group]


@pytest.mark.parametrize("route", FIXED, ids=lambda route: route.template)
def test_every_route_also_exists_without_v1(route) -> None:
    method = min(route.methods)

    with_prefix = match(route.template, method, ())
    without = match(route.template.removeprefix("/v1"), method, ())

    assert with_prefix.route is without.route is route
    assert with_prefix.upstream_path == without.upstream_path == route.template.removeprefix("/v1/")


@pytest.mark.parametrize("group", GATED_GROUPS)
def test_account_state_is_passed_through_only_where_the_config_names_it(group: str) -> None:
    with pytest.raises(RequestRefused, match=r"general_settings\.pass_through") as refused:
        match(f"/v1/{group}/abc", "GET", ())

    assert refused.value.answer.status == 404
    assert match(f"/v1/{group}/abc/content", "GET", (group,)).route.template == f"/v1/{group}/{{path}}"


@pytest.mark.parametrize(
    "path", ["/v1/organization/users", "/organization", "/v1/organizations/x", "/v1/files/../organization"]
)
def test_administration_is_never_reachable(path: str) -> None:
    with pytest.raises(RequestRefused):
        check_path(path.encode())
        match(path, "GET", GATED_GROUPS)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/../admin", b"/v1/./chat", b"/v1/files/..", b"/v1/files/%2e%2e/x", b"/v1/files/a%2Fb", b"/v1/files/a%2fb",
        b"/v1/files/a%5Cb", b"/v1/files\\x", b"//v1/chat/completions", b"/v1//chat", b"/v1/files/%00", b"/v1/%2E/x",
        b"/v1/files/..;/organization",
    ],
)  # fmt: skip
def test_paths_that_could_mean_two_things_are_refused(path: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        check_path(path)

    assert refused.value.answer.status == 400


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/models/meta-llama/Llama-3.1", b"/v1/files/a.jsonl"])
def test_ordinary_paths_pass(path: bytes) -> None:
    check_path(path)


def test_a_wrong_method_says_which_one_is_right() -> None:
    with pytest.raises(RequestRefused, match="takes POST") as refused:
        match("/v1/chat/completions", "GET", ())

    assert refused.value.answer.status == 405


def test_an_unknown_path_points_at_the_list_of_routes() -> None:
    with pytest.raises(RequestRefused, match=r"/openapi\.json") as refused:
        match("/v1/nothing", "POST", ())

    assert refused.value.answer.status == 404


def test_a_model_may_have_slashes_in_its_name() -> None:
    assert match("/v1/models/meta-llama/Llama-3.1", "GET", ()).parameters == {"model": "meta-llama/Llama-3.1"}


@pytest.mark.parametrize("name", ["a%3Fb", "a%23b", "a%20b", "%252e%252e"])
def test_what_is_encoded_in_a_path_goes_upstream_encoded(name: str) -> None:
    """Decoded, ``%3F`` would begin a query upstream, and ``%252e%252e`` would become a dot segment there."""
    raw = f"/v1/files/{name}/content"
    check_path(raw.encode())

    assert match(unquote(raw), "GET", ("files",), raw.encode()).upstream_path == f"files/{name}/content"


@pytest.mark.parametrize("route", [*ROUTES, *ADMIN_ROUTES], ids=lambda route: route.template)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_found_at_once_is_what_the_table_says(route: Route, method: str) -> None:
    path = route.template

    found = plain(path, path.encode(), method)

    assert (found is not None) == ("{" not in path and not route.group and method in route.methods)
    assert found is None or found == match(path, method, ())


@pytest.mark.parametrize(
    "raw", [b"/v1/chat%2Fcompletions", b"//v1/chat/completions", b"/v1/x/../chat/completions", b""]
)
def test_a_path_that_came_otherwise_is_looked_at_closely(raw: bytes) -> None:
    assert plain("/v1/chat/completions", raw, "POST") is None
