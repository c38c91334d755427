"""Kibana's saved objects, read as far as it takes to ask Elasticsearch what their panels would ask it.

Kibana itself is not to be had here: that its importer takes the objects is known from its own exports only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Board", "Panel", "Use", "boards"]

_NUMBERS = frozenset({"long", "integer", "double", "float", "half_float", "scaled_float"})
_EVERYWHERE = frozenset({"@timestamp", "___records___"})
_IN_QUERY = re.compile(r"([\w.@]+):")


class Use(NamedTuple):
    """A field, and what a panel needs of it: a ``number``, something to ``group`` by, or that it can be ``found``."""

    field: str
    need: str

    def fits(self, kind: str, caps: Mapping[str, Any]) -> bool:
        """Say whether a field of Elasticsearch's type ``kind`` serves."""
        if self.need == "number":
            return kind in _NUMBERS and caps["aggregatable"]
        return bool(caps["aggregatable"]) if self.need == "group" else bool(caps["searchable"])


@dataclass(frozen=True)
class Panel:
    """A visualisation or a saved search."""

    title: str
    query: str
    fields: tuple[Use, ...]
    search: Mapping[str, Any]

    def numbers(self, aggregations: Mapping[str, Any]) -> bool:
        """Say whether an answer has a number for every column that shows one."""
        wanted = list(_leaves(self.search.get("aggs", {})))
        return all(any(_found(aggregations, name)) for name in wanted)


@dataclass(frozen=True)
class Board:
    """A file: a data view, the panels and a dashboard that holds them all."""

    name: str
    pattern: str
    panels: tuple[Panel, ...]


def boards(directory: Path) -> list[Board]:
    """Return what the files of ``directory`` hold; an assertion error where one is not whole in itself."""
    return [_board(path) for path in sorted(directory.glob("*.ndjson"))]


def _board(path: Path) -> Board:
    objects = {(each["type"], each["id"]): each for each in map(json.loads, path.read_text().splitlines())}
    for each in objects.values():
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in objects, f"{path.name}: {each['id']}: {reference['name']}"
    (view,) = (each for (kind, _), each in objects.items() if kind == "index-pattern")
    (dashboard,) = (each for (kind, _), each in objects.items() if kind == "dashboard")
    shown = {(reference["type"], reference["id"]) for reference in dashboard["references"]}
    kinds = {"lens": _lens, "search": _search}
    assert shown == {name for name in objects if name[0] in kinds}, f"{path.name}: panels that no dashboard shows"
    placed = [panel["panelRefName"] for panel in json.loads(dashboard["attributes"]["panelsJSON"])]
    assert [reference["name"].partition(":")[2] for reference in dashboard["references"]] == placed
    panels = (kinds[kind](each["attributes"]) for (kind, _), each in objects.items() if kind in kinds)
    return Board(path.stem, view["attributes"]["title"], tuple(panels))


def _lens(attributes: Mapping[str, Any]) -> Panel:
    state = attributes["state"]
    (layer,) = state["datasourceStates"]["formBased"]["layers"].values()
    columns = layer["columns"]
    shown = json.dumps(state["visualization"])
    assert list(columns) == layer["columnOrder"]
    assert [name for name in columns if f'"{name}"' not in shown] == [], f"{attributes['title']}: columns not shown"
    query = state["query"]["query"]
    uses = [Use(each["sourceField"], _need(each)) for each in columns.values()]
    search = {"size": 0, "track_total_hits": True, "query": _lucene(query), "aggs": _aggregations(columns)}
    return Panel(attributes["title"], query, _fields(query, uses), search)


def _search(attributes: Mapping[str, Any]) -> Panel:
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    query = source["query"]["query"]
    uses = [Use(name, "found") for name in attributes["columns"]]
    uses += [Use(name, "group") for name, _ in attributes["sort"]]
    sort = [{name: order} for name, order in attributes["sort"]]
    search = {"size": 5, "track_total_hits": True, "query": _lucene(query), "sort": sort}
    return Panel(attributes["title"], query, _fields(query, uses), search)


def _fields(query: str, uses: list[Use]) -> tuple[Use, ...]:
    uses += [Use(name, "found") for name in _IN_QUERY.findall(query)]
    return tuple(use for use in dict.fromkeys(uses) if use.field not in _EVERYWHERE)


def _need(column: Mapping[str, Any]) -> str:
    return "group" if column["isBucketed"] else "number"


def _lucene(query: str) -> dict[str, Any]:
    """Return KQL of the simplest kind (``field: value and field: *``) as a query of Elasticsearch's."""
    assert re.fullmatch(r'[\w.@]+: ?(?:\*|"[^"]*"|\w+)(?: and [\w.@]+: ?(?:\*|"[^"]*"|\w+))*', query), query
    clauses: list[dict[str, Any]] = []
    for part in query.split(" and "):
        field, _, value = part.partition(":")
        value = value.strip().strip('"')
        clauses.append({"exists": {"field": field}} if value == "*" else {"match": {field: value}})
    return {"bool": {"filter": clauses}}


def _aggregations(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the aggregations of a layer: its buckets within each other, its numbers in the innermost."""
    inner = {name: _metric(each) for name, each in columns.items() if not each["isBucketed"] and _metric(each)}
    for name, column in reversed([(name, each) for name, each in columns.items() if each["isBucketed"]]):
        if column["operationType"] == "date_histogram":
            bucket = {"date_histogram": {"field": column["sourceField"], "fixed_interval": "1d"}}
        else:
            assert column["operationType"] == "terms"
            assert column["params"]["orderBy"]["columnId"] in columns
            bucket = {"terms": {"field": column["sourceField"], "size": column["params"]["size"]}}
        inner = {name: bucket | ({"aggs": inner} if inner else {})}
    return inner


def _metric(column: Mapping[str, Any]) -> dict[str, Any]:
    field = column["sourceField"]
    if column["operationType"] == "count":
        return {}
    if column["operationType"] == "percentile":
        return {"percentiles": {"field": field, "percents": [column["params"]["percentile"]]}}
    assert column["operationType"] in {"sum", "average", "max"}, column["operationType"]
    return {column["operationType"]: {"field": field}}


def _leaves(aggregations: Mapping[str, Any]) -> Iterator[str]:
    for name, each in aggregations.items():
        if "aggs" in each:
            yield from _leaves(each["aggs"])
        else:
            yield name


def _found(answer: Mapping[str, Any], name: str) -> Iterator[bool]:
    """Yield whether each occurrence of the aggregation ``name`` in an answer holds something."""
    for key, value in answer.items():
        if not isinstance(value, dict):
            continue
        if key == name:
            values = value.get("values", {"": value.get("value")})
            yield bool(value.get("buckets")) or any(number is not None for number in values.values())
        elif isinstance(value.get("buckets"), list):
            for bucket in value["buckets"]:
                yield from _found(bucket, name)
