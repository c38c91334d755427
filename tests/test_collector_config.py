"""The check of a Collector's config that needs no Collector."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from otelgw.collector_config import faults, parse, variables

GOOD = """\
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:4317"}}}}
processors: {memory_limiter: {check_interval: 1s, limit_mib: 100}}
exporters: {debug: {}, otlp_http/a: {endpoint: "http://127.0.0.1:1"}}
extensions: {health_check: {}}
service:
  extensions: [health_check]
  pipelines: {traces: {receivers: [otlp], processors: [memory_limiter], exporters: [debug, otlp_http/a]}}
"""


def changed(path: str, value: Any) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(GOOD)
    *above, last = path.split(".")
    place = tree
    for key in above:
        place = place[key]
    place[last] = value
    return tree


def test_a_good_config_has_no_fault() -> None:
    assert parse(GOOD)[1] == []
    assert faults(parse(GOOD)[0]) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("exporters.logging", {"loglevel": "debug"}, "exporters.logging: removed; use debug, with verbosity"),
        ("exporters.jaeger", {"endpoint": "x:14250"}, "exporters.jaeger: removed; Jaeger takes OTLP, use otlp_grpc"),
        ("processors.spanmetrics", {}, "processors.spanmetrics: removed; use the connector spanmetrics"),
        ("exporters.otlp_htp", {}, "exporters.otlp_htp: unknown component; did you mean otlphttp?"),
        ("receivers.debug", {}, "receivers.debug: unknown component"),
        ("exporters.otlp_http/a", {}, "exporters.otlp_http/a.endpoint: missing (or traces_endpoint"),
        (
            "exporters.elasticsearch",
            {"endpoint": ""},
            "exporters.elasticsearch.endpoint: missing (or endpoints, cloudid)",
        ),
        ("exporters.awss3", {"s3uploader": {"region": "x"}}, "exporters.awss3.s3uploader.s3_bucket: missing"),
        ("exporters.otlp_http/a", "http://x", "exporters.otlp_http/a: must be a mapping"),
        (
            "service.pipelines.traces.exporters",
            ["debugg"],
            "service.pipelines.traces.exporters: debugg is not defined under",
        ),
        ("service.pipelines.traces.receivers", [], "service.pipelines.traces.receivers: there is none"),
        ("service.pipelines.traces.receivers", "otlp", "service.pipelines.traces.receivers: must be a list"),
        ("service.pipelines.traces.processors", ["batch"], "service.pipelines.traces.processors: batch is not defined"),
        ("service.extensions", ["zpages"], "service.extensions: zpages is not defined under extensions"),
        ("service.pipelines", {"trace": {}}, "service.pipelines.trace: a pipeline's name begins with one of traces"),
        ("service.pipelines", {}, "service.pipelines: there is none, so nothing would run"),
        ("exporter", {"debug": {}}, "exporter: no section of a Collector's config; did you mean exporters?"),
        ("exporters", ["debug"], "exporters: must be a mapping"),
    ],
)
def test_a_fault_is_told_with_its_path(path: str, value: Any, fault: str) -> None:
    assert any(each.startswith(fault) for each in faults(changed(path, value))), faults(changed(path, value))


def test_a_connector_may_stand_on_both_sides() -> None:
    tree = yaml.safe_load(GOOD)
    tree["connectors"] = {"spanmetrics": {}}
    tree["service"]["pipelines"]["traces"]["exporters"].append("spanmetrics")
    tree["service"]["pipelines"]["metrics"] = {"receivers": ["spanmetrics"], "exporters": ["debug"]}
    assert faults(tree) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("receivers: {otlp: ", "line 1, column 19"),
        ("a: 1\n - b: 2", "line 2"),
        ("- receivers", "no mapping"),
        ("", "no mapping"),
        ("a: \x07", "the file"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text: str, problem: str) -> None:
    (told,) = parse(text)[1]
    assert problem in told


def test_variables_without_a_default_are_named() -> None:
    tree = {"a": ["${env:ONE}", {"b": "x ${env:TWO} ${env:ONE}"}], "c": "${env:THREE:-3} $${env:FOUR}", "d": 5}
    assert variables(tree) == {"ONE", "TWO"}


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))
KEYS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["receivers", "exporters", "service", "pipelines", "traces", "otlp", "extensions", "debug"]),
)
TREES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)), max_leaves=20)


@example({"service": {"extensions": [[]]}})
@given(st.dictionaries(KEYS, TREES))
def test_any_tree_is_judged_without_an_exception(tree: dict[str, Any]) -> None:
    assert all(": " in fault for fault in faults(tree))
    variables(tree)
