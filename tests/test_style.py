"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("otelgw", "collector/otelgw_collector", "exporters/otelgw_exporters")
LINES = 600
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}

# The only modules that may read the process environment; the entry points only pass it on.
ENVIRONMENT_READERS = {
    "otelgw/config/env.py",
    "otelgw/cli.py",
    "otelgw/supervisor.py",
    "exporters/otelgw_exporters/options.py",
}
ENVIRONMENT_CHANGES = {"update", "setdefault", "pop", "popitem", "clear"}

# Destinations that the request path and the pipeline must not know.
VENDORS = (
    *("arize", "athina", "axiom", "braintrust", "cloudzero", "datadog", "deepeval", "dynatrace", "elasticsearch"),
    *("galileo", "grafana", "greenscale", "helicone", "honeycomb", "humanloop", "kibana", "langfuse"),
    *("langsmith", "lago", "literalai", "logfire", "lunary", "mlflow", "newrelic", "openmeter", "opensearch", "opik"),
    *("phoenix", "posthog", "promptlayer", "sentry", "signoz", "splunk", "supabase", "wandb", "weave"),
)
# Modules that must know names on the wire which hold a vendor's: trace headers that are stripped, request fields that
# redirect a call or carry a credential. Only literals are allowed, and only there.
WIRE_NAMES = {
    "otelgw/tracing/propagation.py",
    "otelgw/http/headers.py",
    "otelgw/http/outbound.py",
    "otelgw/http/splice.py",
}


@cache
def _tracked() -> tuple[Path, ...]:
    """Every file that is, or could be, committed."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        return tuple(ROOT / name for name in names if name and (ROOT / name).is_file())
    skipped = {".venv", ".cache", "build", "dist", "__pycache__"}
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts))


@cache
def _texts() -> dict[str, str]:
    texts = {}
    for path in _tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            texts[path.relative_to(ROOT).as_posix()] = data.decode(errors="replace")
    return texts


def _sources(*tops: str) -> dict[str, str]:
    """Python files under ``tops``, or all of them."""
    chosen = {name: text for name, text in _texts().items() if name.endswith(".py")}
    return {
        name: text for name, text in chosen.items() if not tops or name.startswith(tuple(f"{top}/" for top in tops))
    }


def _hits(pattern: str, texts: dict[str, str], flags: re.RegexFlag = re.NOFLAG) -> list[str]:
    compiled = re.compile(pattern, flags)
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if compiled.search(line)
    ]


def _registry_hosts() -> set[str]:
    """The hosts that this machine's package clients are set up with."""
    text = " ".join(
        value for name, value in os.environ.items() if re.search("INDEX_URL|REGISTRY|GOPROXY", name, re.IGNORECASE)
    )
    for command in (["pip", "config", "list"], ["npm", "config", "get", "registry"], ["go", "env", "GOPROXY"]):
        if shutil.which(command[0]):
            text += " " + subprocess.run(command, capture_output=True, text=True, check=False).stdout
    hosts = (urlsplit(url).hostname for url in re.findall(r"https?://[^\s,'\"|]+", text))
    return {host for host in hosts if host}


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = _registry_hosts()
    if not hosts:
        pytest.skip("no package client here is set up with a registry of its own")
    assert _hits("|".join(re.escape(host) for host in hosts), _texts()) == []


def test_no_file_holds_a_path_of_one_machine() -> None:
    tops = "|".join(("work", "root", "farm", "tmp/bash_jobs"))
    assert _hits(rf"(?:^|[^A-Za-z0-9_])/(?:{tops})/", _texts()) == []


def test_nothing_imports_litellm() -> None:
    assert _hits(r"^\s*(?:import|from)\s+litellm\b", _sources()) == []
    assert _hits(r"[\"']litellm(?![a-z_-])", {"pyproject.toml": _texts()["pyproject.toml"]}) == []


def test_request_path_and_pipeline_name_no_destination_vendor() -> None:
    core = _sources("otelgw", "collector/otelgw_collector")
    word = "|".join(VENDORS)
    strict = {name: text for name, text in core.items() if name not in WIRE_NAMES}
    assert _hits(rf"(?:{word})", strict, re.IGNORECASE) == []
    lenient = {name: re.sub(r"\"[^\"\n]*\"", "", text) for name, text in core.items() if name in WIRE_NAMES}
    assert _hits(rf"(?:{word})", lenient, re.IGNORECASE) == []


def test_every_module_is_named_by_a_noun_that_says_what_it_is() -> None:
    assert [name for name in _sources(*PACKAGES, "benchmarks") if Path(name).stem in VAGUE] == []


def _environment_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every use of the process environment."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name):
            if node.value.id == "os":
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)


def test_the_environment_is_read_in_one_module_of_each_room() -> None:
    found = [
        f"{name}:{line}: os.{use}"
        for name, text in _sources(*PACKAGES).items()
        for line, use in _environment_uses(ast.parse(text))
        if name not in ENVIRONMENT_READERS
    ]
    assert found == []


def _is_environment(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in {"environ", "environb"}


def _environment_writes(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and _is_environment(node.value)
        ):
            yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            on_environ = _is_environment(node.func.value) and node.func.attr in ENVIRONMENT_CHANGES
            if on_environ or node.func.attr in {"putenv", "unsetenv", "load_dotenv"}:
                yield node.lineno


def test_nothing_writes_to_the_environment() -> None:
    sources = _sources(*PACKAGES, "benchmarks")
    assert [f"{name}:{line}" for name, text in sources.items() for line in _environment_writes(ast.parse(text))] == []


def test_nothing_sets_a_global_provider() -> None:
    pattern = r"set_(?:tracer|meter|logger)_provider|set_global_textmap"
    assert _hits(pattern, _sources(*PACKAGES)) == []


def test_no_python_file_is_too_long_to_find_a_line_in() -> None:
    long = {name: text.count("\n") for name, text in _sources().items() if text.count("\n") > LINES}
    assert long == {}
