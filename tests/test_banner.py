"""What a started gateway prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from otelgw import banner
from otelgw.config.settings import Auth, Deployment, Destination, Receiver, Server, Settings, Tracing


def _model(alias: str, provider: str = "openai", **model_info: str) -> Deployment:
    return Deployment(alias, alias, provider, provider, alias, "https://api.example.com", model_info=model_info)


def _lines(**changes: object) -> list[str]:
    settings = Settings(**({"deployments": (_model("echo", "echo"),), "state_dir": "/srv/state"} | changes))  # type: ignore[arg-type]
    return banner.start(settings).splitlines()


def test_the_first_line_says_where_it_is_and_what_it_does() -> None:
    first, _ = _lines(destinations=(Destination("console", "console"), Destination("otlp_grpc/a", "otlp_grpc")))
    assert first.endswith(
        "http://127.0.0.1:4000  models: echo  destinations: console, otlp_grpc/a  auth: off (loopback only)  "
        "content: on  state: /srv/state"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"auth": Auth(master_key_sha256="0" * 64)}, "auth: master key"),
        ({"server": Server(host="0.0.0.0", allow_open=True)}, "auth: off (open to everybody)"),
        ({"tracing": Tracing(content=False)}, "content: off"),
        ({"destinations": ()}, "destinations: none"),
        ({"deployments": ()}, "models: none"),
        ({"deployments": tuple(_model(f"m{n:02}") for n in range(11))}, "m07 and 3 more"),
        ({"server": Server(certfile="c", keyfile="k")}, "https://127.0.0.1:4000"),
        ({"server": Server(host="::1")}, "http://[::1]:4000"),
        ({"state_dir": str(Path.home() / "x")}, "state: ~/x"),
        ({"warnings": ("no destination",)}, "warning: no destination"),
        ({"receiver": Receiver()}, "receiver: grpc 127.0.0.1:4317, http 127.0.0.1:4318"),
        ({"receiver": Receiver(grpc="")}, "receiver: http 127.0.0.1:4318"),
    ],
)
def test_what_an_operator_has_to_know_is_shown(changes: dict[str, object], expected: str) -> None:
    assert expected in "\n".join(_lines(**changes))


def _call(**changes: object) -> list[str]:
    last = _lines(**changes)[-1]
    assert last.startswith("try:  ")
    return shlex.split(last.removeprefix("try:  "))


def test_the_line_to_paste_is_a_whole_call() -> None:
    command = _call()
    assert command[:3] == ["curl", "-s", "http://127.0.0.1:4000/v1/chat/completions"]
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    assert json.loads(command[command.index("-d") + 1]) == body


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:4000/v1/chat/completions"),
        ("::", "http://[::1]:4000/v1/chat/completions"),
        ("gateway.internal", "http://gateway.internal:4000/v1/chat/completions"),
    ],
)
def test_the_line_to_paste_goes_where_the_gateway_can_be_reached(host: str, url: str) -> None:
    assert url in _call(server=Server(host=host))


def test_the_key_is_named_and_never_shown() -> None:
    line = _lines(auth=Auth(master_key_sha256="a" * 64))[-1]
    assert '-H "Authorization: Bearer $OTELGW_KEY"' in line
    assert "aaaa" not in line


def test_a_model_with_quotes_is_quoted_for_the_shell() -> None:
    command = _call(deployments=(_model("it's $(a) model"),))
    assert json.loads(command[-1])["model"] == "it's $(a) model"


@pytest.mark.parametrize(
    ("deployments", "chosen"),
    [
        ((_model("a-gpt"), _model("echo", "echo")), "echo"),
        ((_model("b"), _model("a")), "b"),
        ((_model("embed", mode="embedding"), _model("talk")), "talk"),
        ((_model("gpt-*"), _model("z")), "z"),
    ],
)
def test_the_model_to_try_is_the_first_that_chats_or_one_that_costs_nothing(
    deployments: tuple[Deployment, ...], chosen: str
) -> None:
    assert json.loads(_call(deployments=deployments)[-1])["model"] == chosen


@pytest.mark.parametrize("deployments", [(), (_model("openai/*"),), (_model("embed", mode="embedding"),)])
def test_without_a_model_to_try_there_is_no_line_to_paste(deployments: tuple[Deployment, ...]) -> None:
    assert not _lines(deployments=deployments)[-1].startswith("try:")
