"""The dashboards for Grafana ask for what the gateway really exports: names, labels and all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import promql_parser as promql
import pytest

from otelgw.instruments import INSTRUMENTS, Instrument, prometheus_name
from tests.servers.gateway import GatewayProcess

BOARDS = sorted((Path(__file__).parents[1] / "deploy" / "grafana").glob("*.json"))
OF_THE_SCRAPE = {"job", "instance"}
INTERVALS = {"$__rate_interval": "5m", "$__range": "6h", "$__interval": "1m"}
VARIABLE = re.compile(r"label_values\((?:(?P<query>.+), *)?(?P<label>\w+)\)")


class Asked(NamedTuple):
    """A series as a query names it, and the labels that it needs of it; ``values`` are those matched for equality."""

    name: str
    labels: frozenset[str]
    values: frozenset[tuple[str, str]]


def read(board: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(board.read_text())
    return found


def queries(board: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (panel, expression, legend) of every query, and the variables' own as expressions with a grouping."""
    tree = read(board)
    for panel in tree["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in tree["templating"]["list"]:
        if variable["type"] == "query":
            found = VARIABLE.fullmatch(variable["query"]["query"])
            assert found is not None, variable["query"]
            yield f"variable {variable['name']}", f"group by ({found['label']}) ({found['query']})", ""


def parsed(expression: str) -> Any:
    """Return a query as Prometheus' grammar has it, with Grafana's intervals filled in."""
    for name, value in INTERVALS.items():
        expression = expression.replace(name, value)
    return promql.parse(expression)


def asked(node: Any, grouped: frozenset[str] = frozenset()) -> Iterator[Asked]:
    """Yield every series that a parsed query asks for, with the labels that stand around it, too."""
    if isinstance(node, promql.VectorSelector):
        matchers = [each for each in node.matchers.matchers if each.name != "__name__"]
        labels = frozenset(each.name for each in matchers)
        exact = frozenset((each.name, each.value) for each in matchers if each.op == promql.MatchOp.Equal)
        yield Asked(str(node.name), labels | grouped, exact)
    elif isinstance(node, promql.MatrixSelector):
        yield from asked(node.vector_selector, grouped)
    elif isinstance(node, promql.AggregateExpr):
        labels = frozenset(node.modifier.labels if node.modifier else ())
        yield from asked(node.expr, grouped | labels)
    elif isinstance(node, promql.BinaryExpr):
        yield from asked(node.lhs, grouped)
        yield from asked(node.rhs, grouped)
    elif isinstance(node, promql.Call):
        for each in node.args:
            yield from asked(each, grouped)
    elif isinstance(node, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
        yield from asked(node.expr, grouped)


def exported() -> dict[str, tuple[Instrument, frozenset[str]]]:
    """Return each series that Prometheus can have of the gateway: what it is of, and its labels."""
    found = {}
    for instrument in INSTRUMENTS.values():
        name = prometheus_name(instrument)
        labels = frozenset(label.replace(".", "_") for label in instrument.labels) | OF_THE_SCRAPE
        if instrument.kind == "histogram":
            found |= {f"{name}_{part}": (instrument, labels) for part in ("sum", "count")}
            found[f"{name}_bucket"] = (instrument, labels | {"le"})
        else:
            found[name] = (instrument, labels)
    return found


EXPORTED = exported()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_every_query_asks_for_series_and_labels_that_are_exported(board: Path) -> None:
    for panel, expression, _ in queries(board):
        series = list(asked(parsed(expression)))
        assert series, f"{panel}: {expression}"
        for each in series:
            assert each.name in EXPORTED, f"{panel}: there is no {each.name}"
            assert each.labels <= EXPORTED[each.name][1], f"{panel}: {each.labels - EXPORTED[each.name][1]}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_what_only_grows_is_asked_for_as_a_rate_and_nothing_else_is(board: Path) -> None:
    for panel, expression, _ in queries(board):
        if panel.startswith("variable "):
            continue
        rated = set(re.findall(r"\b(?:rate|increase)\((\w+)", expression))
        for each in asked(parsed(expression)):
            grows = EXPORTED[each.name][0].kind in {"counter", "histogram"}
            assert (each.name in rated) == grows, f"{panel}: {each.name}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_sum_does_not_vanish_because_a_part_of_it_has_not_been_counted_yet(board: Path) -> None:
    # What never happened has no series, and a sum with nothing is nothing.
    for panel, expression, _ in queries(board):
        if parts := expression.count(") + ("):
            assert expression.count(" or vector(0))") == parts + 1, panel


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_legend_names_labels_that_the_query_keeps(board: Path) -> None:
    for panel, expression, legend in queries(board):
        kept = {name for labels in re.findall(r"\bby \(([^)]*)\)", expression) for name in labels.split(", ")}
        assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, panel


def test_every_metric_there_is_can_be_seen_on_a_dashboard() -> None:
    seen = {each.name for board in BOARDS for _, text, _ in queries(board) for each in asked(parsed(text))}
    shown = {EXPORTED[name][0].name for name in seen}
    assert set(INSTRUMENTS) - shown == set()


def test_the_values_that_queries_compare_with_are_ones_that_exist() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "metrics.md").read_text()
    known = set(re.findall(r"`(\w+)`", page)) | {"input", "output"}
    values = {
        pair
        for board in BOARDS
        for _, text, _ in queries(board)
        for each in asked(parsed(text))
        for pair in each.values
    }
    assert values
    assert {value for _, value in values} <= known


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_panels_have_ids_of_their_own_and_none_lies_on_another(board: Path) -> None:
    panels = read(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_board_can_be_imported_anywhere(board: Path) -> None:
    tree = read(board)
    assert "id" not in tree
    assert tree["uid"]
    sources = [panel["datasource"] for panel in tree["panels"] if panel["type"] != "row"]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    variables = {variable["name"] for variable in tree["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(tree["panels"])))
    assert used == variables


SAMPLE = re.compile(r"^(\w+)(?:{(.*)})? ", re.MULTILINE)
# Of these there are values from the start, or after the requests of the test; others wait for what they count.
REAL = (
    "gen_ai_",
    "http_server_",
    "otelgw_destination_",
    "otelgw_spool_usage",
    "otelgw_spool_limit",
    "otelgw_pipeline_",
)


def test_a_running_gateway_exports_what_the_dashboards_ask_for(tmp_path: Path) -> None:
    config = (
        "model_list:\n"
        "  - {model_name: echo, litellm_params: {model: echo/echo}}\n"
        '  - {model_name: dead, litellm_params: {model: openai/dead, api_base: "http://127.0.0.1:1/v1", api_key: k}}\n'
        "otelgw: {destinations: [file]}\n"
    )
    with GatewayProcess(config, tmp_path) as gateway:
        for model, stream in (("echo", False), ("echo", True), ("dead", False)):
            body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
            httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)

        def page() -> str:
            return httpx.get(f"{gateway.url}/metrics", trust_env=False).text

        wanted = ('error_type="', "time_to_first_chunk_seconds_bucket", "delivery_duration_seconds_bucket")
        gateway.wait_until(lambda: all(each in page() for each in wanted))
        text = page()
    labels: dict[str, set[str]] = {}
    for name, inside in SAMPLE.findall(text):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', inside))
    for board in BOARDS:
        for panel, expression, _ in queries(board):
            for each in asked(parsed(expression)):
                if each.name.startswith(REAL):
                    assert each.name in labels, f"{panel}: {each.name}"
                    assert each.labels - OF_THE_SCRAPE <= labels[each.name], f"{panel}: {each}"
