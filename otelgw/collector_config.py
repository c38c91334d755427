"""A Collector's config checked without a Collector: its YAML, the components' names, what the pipelines refer to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["faults", "parse", "variables"]

_KINDS = ("receivers", "processors", "exporters", "connectors", "extensions")
_SIGNALS = ("traces", "metrics", "logs", "profiles")


@dataclass(frozen=True, slots=True)
class _Known:
    """Component names without underscores, by kind; what was removed, and what exporters need."""

    names: Mapping[str, frozenset[str]]
    removed: Mapping[str, Mapping[str, str]]
    required: Mapping[str, list[str]]


@cache
def _known() -> _Known:
    text = files("otelgw_collector").joinpath("components.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    return _Known({kind: frozenset(tree[kind].split()) for kind in _KINDS}, tree["removed"], tree["required"])


def parse(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the config in ``text``, and what is wrong with it as YAML (line and column, counted from one)."""
    try:
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "the file"
        return {}, [f"{where}: {error.problem or error.context}"]
    except yaml.YAMLError as error:
        return {}, [f"the file: {str(error).splitlines()[0]}"]
    if not isinstance(tree, dict):
        return {}, ["the file: no mapping; a config has receivers:, exporters: and service:"]
    return tree, []


def faults(tree: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a config, each after its path: ``exporters.otlp_grpc/a: …``."""
    return [*_sections(tree), *_components(tree), *_service(tree)]


def _sections(tree: Mapping[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        if key not in {*_KINDS, "service"}:
            yield f"{key}: no section of a Collector's config{_meant(str(key), [*_KINDS, 'service'])}"
        elif value is not None and not isinstance(value, dict):
            yield f"{key}: must be a mapping"


def _components(tree: Mapping[str, Any]) -> Iterator[str]:
    for kind in _KINDS:
        for name, settings in _mapping(tree.get(kind)).items():
            path = f"{kind}.{name}"
            base = _base(name)
            removed = _known().removed.get(kind, {})
            if base in removed:
                yield f"{path}: {removed[base]}"
            elif base not in _known().names[kind] and not base.endswith("encoding"):
                yield f"{path}: unknown component{_meant(base, _known().names[kind])}"
            elif settings is not None and not isinstance(settings, dict):
                yield f"{path}: must be a mapping"
            elif kind == "exporters":
                yield from _required(path, base, _mapping(settings))


def _required(path: str, base: str, settings: Mapping[str, Any]) -> Iterator[str]:
    wanted = _known().required.get(base, [])
    if wanted and not any(_at(settings, each) for each in wanted):
        yield f"{path}.{wanted[0]}: missing" + (f" (or {', '.join(wanted[1:])})" if wanted[1:] else "")


def _service(tree: Mapping[str, Any]) -> Iterator[str]:
    service = _mapping(tree.get("service"))
    pipelines = _mapping(service.get("pipelines"))
    if not pipelines:
        yield "service.pipelines: there is none, so nothing would run"
    for name in _list(service.get("extensions")):
        if name not in list(_mapping(tree.get("extensions"))):  # whatever stands there: it may have no hash
            yield f"service.extensions: {name} is not defined under extensions"
    for name, pipeline in pipelines.items():
        path = f"service.pipelines.{name}"
        if str(name).partition("/")[0] not in _SIGNALS:
            yield f"{path}: a pipeline's name begins with one of {', '.join(_SIGNALS)}"
        if not isinstance(pipeline, dict):
            yield f"{path}: must be a mapping with receivers and exporters"
            continue
        for role in ("receivers", "processors", "exporters"):
            yield from _references(tree, path, role, pipeline)


def _references(tree: Mapping[str, Any], path: str, role: str, pipeline: Mapping[str, Any]) -> Iterator[str]:
    found = pipeline.get(role)
    if found is not None and not isinstance(found, list):
        yield f"{path}.{role}: must be a list"
        return
    if not found and role != "processors":
        yield f"{path}.{role}: there is none"
    defined = list(_mapping(tree.get(role)))
    if role != "processors":
        defined += list(_mapping(tree.get("connectors")))
    for name in found or ():
        if name not in defined:
            yield f"{path}.{role}: {name} is not defined under {role}{_meant(str(name), map(str, defined))}"


def variables(tree: Any) -> frozenset[str]:
    """Return the environment variables that a config refers to without a default."""
    found: set[str] = set()
    if isinstance(tree, Mapping):
        found.update(*(variables(value) for value in tree.values()))
    elif isinstance(tree, list):
        found.update(*(variables(value) for value in tree))
    elif isinstance(tree, str):
        for part in tree.replace("$$", "").split("${env:")[1:]:
            name, brace, _ = part.partition("}")
            if brace and ":-" not in name:
                found.add(name)
    return frozenset(found)


def _base(name: Any) -> str:
    return str(name).partition("/")[0].strip().replace("_", "")


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _meant(name: str, names: Any) -> str:
    near = get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
