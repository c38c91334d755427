"""YAML text -> plain data that knows its lines.

The grammar is PyYAML's safe one with three readings of YAML 1.1 left out, because they turn what people write in a
gateway's config into something else: mapping keys are text as written (``on:`` is not ``True:``), a date is text
(``api_version: 2024-02-01``), and ``22:30`` is text, not a number in base 60.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from otelgw.errors import ConfigError

__all__ = ["Document", "Location", "parse", "path_text"]

Location = tuple[str | int, ...]  # ("model_list", 0, "litellm_params", "model")

MAX_BYTES = 8 * 1024 * 1024
MAX_NODES = 200_000  # aliases multiply: nine lines of them can stand for a billion nodes
MAX_DEPTH = 64
MAX_MISINDENTED = 100


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates and numbers in base 60."""


_DROPPED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|0o?[0-7]+|[1-9][0-9_]*|0)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?)$"
    ),
    list("-+.0123456789"),
)
_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null", "bool", "int", "float", "value", "merge")
)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed config file.

    ``lines`` maps a config path such as ``model_list[0].litellm_params.model`` to its line, counted from 1.
    """

    source: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """Return the line of ``location`` or of the nearest place above it that the file has; 0 without one."""
        for length in range(len(location), 0, -1):
            found = self.lines.get(path_text(location[:length]))
            if found is not None:
                return found
        return 0

    def where(self, location: Location) -> str:
        """Return ``config.yaml:12: model_list[0].litellm_params.model`` for a message."""
        line = self.line(location)
        place = f"{self.source}:{line}" if line else self.source
        return f"{place}: {path_text(location)}" if location else place


def path_text(location: Location) -> str:
    """Return ``model_list[0].litellm_params`` for ``("model_list", 0, "litellm_params")``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(content: bytes | str, source: str) -> Document:
    """Return the document in ``content``; ``source`` is its name in messages.

    Raises:
        ConfigError: not UTF-8, no YAML, a duplicate key, a tag or a shape that a config cannot have; with the line.
    """
    text = _decode(content, source)
    try:
        node = _compose(text)
    except RecursionError:
        raise ConfigError([f"{source}: nested too deeply; a config has at most {MAX_DEPTH} levels"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(_misindented(text, source) or [_yaml_problem(error, text, source)]) from None
    if node is None:
        return Document(source)
    reading = _Reading(source)
    data = reading.value(node, ())
    if data is not None and not isinstance(data, dict):
        reading.problems.append(f"{source}:{_line(node)}: the top level must be `key: value` pairs, like `model_list:`")
    if reading.problems:
        raise ConfigError(reading.problems)
    return Document(source, data or {}, reading.lines)


def _decode(content: bytes | str, source: str) -> str:
    if len(content) > MAX_BYTES:
        raise ConfigError([f"{source}: {len(content)} bytes; a config has at most {MAX_BYTES}"])
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{source}:{line}: not UTF-8 text; save the file as UTF-8"]) from None


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Reading:
    """One walk over the node tree: data, lines and every problem on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def problem(self, node: yaml.Node, message: str) -> None:
        self.problems.append(f"{self.source}:{_line(node)}: {message}")

    def value(self, node: yaml.Node, location: Location) -> Any:
        self._nodes += 1
        if len(location) > MAX_DEPTH or self._nodes > MAX_NODES:
            if self._nodes <= MAX_NODES or self._nodes == MAX_NODES + 1:
                self._nodes = MAX_NODES + 1
                self.problem(node, "nested too deeply, or aliases (`*name`) that multiply; write the values out")
            return None
        self.lines.setdefault(path_text(location), _line(node))
        if node.tag not in _TAGS:
            self.problem(node, f"the tag {node.tag} is not supported; write a plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for merged in self._merged(value_node, location):
                    data.update({key: value for key, value in merged.items() if key not in data})
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, "a key must be plain text")
                continue
            key = str(key_node.value)
            if key in first:
                self.problem(key_node, f"`{path_text((*location, key))}` is set twice, first on line {first[key]}")
                continue
            first[key] = _line(key_node)
            self.lines[path_text((*location, key))] = _line(key_node)
            data[key] = self.value(value_node, (*location, key))
        return data

    def _merged(self, node: yaml.Node, location: Location) -> Iterator[dict[str, Any]]:
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.value(item, location)
            if isinstance(value, dict):
                yield value
            elif value is not None:
                self.problem(item, "`<<` takes a mapping, as in `<<: *defaults`")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return self._scalars.construct_yaml_bool(node)
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return float(text.replace("_", ""))
        except (ValueError, KeyError):
            self.problem(node, f"not a number or a boolean that can be read; put it in quotes if it is text ({kind})")
            return None
        return text


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign, digits = (-1, digits[1:]) if digits[0] == "-" else (1, digits.lstrip("+"))
    if digits.lower().startswith(("0x", "0o")):
        return sign * int(digits, 0)
    base = 8 if len(digits) > 1 and digits[0] == "0" else 10
    return sign * int(digits, base)


def _yaml_problem(error: yaml.YAMLError, text: str, source: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "").strip()
    if mark is None:
        # A character that YAML does not allow: PyYAML gives its offset instead of a mark.
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        return f"{source}:{line}: not YAML: a control character that text files do not have"
    if "\\t" in problem:
        problem = "a tab; indent with spaces"
    elif problem.endswith(("'-'", "'<block sequence start>'")):
        problem = "a list item out of place; the dashes of one list stand in the same column"
    return f"{source}:{mark.line + 1}: not YAML: {problem or 'this line cannot be read'} (column {mark.column + 1})"


_ITEM = re.compile(r"( *)- [^\s:#][^:]*:(?: |$)")


def _misindented(text: str, source: str) -> list[str]:
    """Return one problem per list item whose keys stand deeper than its first key, with the line to write instead.

    ``` - model_name: a``` over ``    litellm_params:`` is a widespread slip: the dash is one space too far left.
    Every such line is mended in a copy until it parses, so that all of them are shown at once.
    """
    lines = text.splitlines()
    problems: list[str] = []
    for _ in range(MAX_MISINDENTED):
        try:
            _compose("\n".join(lines))
        except RecursionError:
            return []
        except yaml.YAMLError as error:
            found = _slip(lines, error)
            if found is None:
                return []
        else:
            return problems
        first, width = found
        for index in _siblings(lines, first, width):
            old = lines[index]
            lines[index] = " " * width + old.lstrip(" ")
            problems.append(
                f"{source}:{index + 1}: not YAML: the keys below are indented by {width + 2}, so the dash of their "
                f'list item must be indented by {width}: write "{_shown(lines[index])}" instead of "{_shown(old)}"'
            )
    return []


def _shown(line: str) -> str:
    """Return a config line for a message: an item's first line holds a name, but it might hold a key."""
    key, colon, value = line.partition(":")
    return f"{key}{colon} …" if "key" in key.lower() and value.strip() else line


def _slip(lines: list[str], error: yaml.YAMLError) -> tuple[int, int] | None:
    """Return the index of the misplaced item and the indent that its dash needs; None for another mistake."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", ""))
    # The second one where a comment or a quotation mark ends the value of the item's first key.
    deeper = "mapping values are not allowed" in problem or "but found '<block mapping start>'" in problem
    if mark is None or not deeper or mark.line >= len(lines):
        return None
    index = mark.line - 1
    while index >= 0 and (not lines[index].strip() or lines[index].lstrip().startswith("#")):
        index -= 1
    match = _ITEM.match(lines[index]) if index >= 0 else None
    width = _indent(lines[mark.line]) - 2
    if match is None or width <= len(match[1]):
        return None
    return index, width


def _siblings(lines: list[str], first: int, width: int) -> list[int]:
    """Return the items of the same list that have the same slip, ``first`` among them."""
    indent = _indent(lines[first])
    found = [first]
    for index in range(first + 1, len(lines)):
        line = lines[index]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if _indent(line) < indent or (_indent(line) == indent and not line.lstrip().startswith("- ")):
            break
        if _indent(line) == indent and _ITEM.match(line) and width > indent:
            found.append(index)
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
