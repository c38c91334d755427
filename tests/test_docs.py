"""The documentation is true where a program can tell: links, commands, targets, examples."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from otelgw.config.flags import COMMANDS, FLAGS
from otelgw.config.load import examine
from otelgw_exporters import catalog
from tests.servers.gateway import GatewayProcess

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Yield (page and number, text) of every fenced block in one of ``languages``."""
    for page in PAGES:
        for number, (language, text) in enumerate(FENCE.findall(page.read_text()), 1):
            if language in languages:
                yield f"{_name(page)} block {number}", text


def _anchors(page: Path) -> set[str]:
    """Heading anchors as code forges make them: lower case, punctuation dropped, spaces to hyphens."""
    titles = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_page_on_litellms_config_names_exactly_the_callbacks_that_are_sent() -> None:
    text = (ROOT / "docs/how-to/use-a-litellm-config.md").read_text()
    sent, absent = (re.search(rf"^\| {row}.*$", text, re.MULTILINE) for row in ("sent", "not there"))
    assert sent is not None
    assert absent is not None
    names = {name for row in catalog.ROWS for name in catalog.litellm_names(row)}
    assert set(re.findall(r"`(\w+)`", sent[0])) == names
    assert (
        set(re.findall(r"`(\w+)`", absent[0].replace("today's `lunary`", "").replace("`weave_otel`", ""))) - {"check"}
        <= catalog.KNOWN_CALLBACKS
    )


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in _anchors(path)):
            broken.append(link)
    assert broken == []


def test_every_page_of_the_documentation_can_be_reached_from_its_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        waiting += [path for link in links if link and (path := (page.parent / link).resolve()).is_file()]
    assert [_name(page) for page in PAGES if "docs" in page.parts and page not in reached] == []


@pytest.mark.parametrize(
    ("where", "text"), list(_blocks("python")), ids=lambda value: value if " block " in value else ""
)
def test_every_python_example_compiles(where: str, text: str) -> None:
    ast.parse(text, filename=where)


def test_every_json_example_is_json() -> None:
    for where, text in _blocks("json"):
        assert json.loads(text), where


def test_every_shell_example_is_shell() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    for where, text in _blocks("sh", "bash", "shell"):
        done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: {done.stderr}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (target, _name(page))
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {(target, page) for target, page in named if target not in targets} == set()


def test_the_readme_begins_with_the_two_commands_that_matter() -> None:
    readme = (ROOT / "README.md").read_text()
    assert 0 <= readme.find("make run") < readme.find("make test") < 2000


def test_the_changelog_has_a_section_for_this_version() -> None:
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    groups = [PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]["dev"]]
    groups += PROJECT["project"]["optional-dependencies"].values()
    for requirement in (Requirement(text) for group in groups for text in group):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


@pytest.mark.parametrize(
    ("where", "text"), list(_blocks("yaml")), ids=lambda value: value if " block " in value else ""
)
def test_every_config_example_is_one_that_check_accepts(where: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    (tmp_path / "custom_callbacks.py").write_text("proxy_handler_instance = None\n")
    variables = dict.fromkeys(re.findall(r"os\.environ/(\w+)", text), "sk-documentation")
    _, findings = examine(str(path), {"OTELGW_MASTER_KEY": "sk-documentation", **variables}, prices=False)
    assert not findings.errors, where
    assert not findings.strict, where


def test_every_command_and_flag_that_is_named_exists() -> None:
    commands = {command.name for command in COMMANDS}
    flags = {name for flag in FLAGS for name in flag.names} | {"--version", "--help"}
    unknown = set()
    for where, text in _blocks("sh"):
        for line in text.splitlines():
            called = re.match(r"(?:\S*/)?otelgw((?: .*)?)$", line.partition("#")[0].strip())
            words = called[1].split() if called else []
            if words and not words[0].startswith("-") and words[0] not in commands:
                unknown.add((where, words[0]))
            unknown |= {(where, word) for word in words if word.startswith("-") and word not in flags}
    assert unknown == set()


def test_the_first_python_example_and_every_curl_work_as_printed(tmp_path: Path) -> None:
    bash, curl = shutil.which("bash"), shutil.which("curl")
    if bash is None or curl is None:
        pytest.skip("no bash or curl")
    pages = [ROOT / "README.md", ROOT / "docs/tutorials/first-trace.md"]
    blocks = [block for page in pages for block in FENCE.findall(page.read_text())]
    commands = [text for language, text in blocks if language == "sh" and text.startswith("curl")]
    (program,) = (text for language, text in blocks if language == "python")
    with GatewayProcess(None, tmp_path) as gateway:
        done = subprocess.run(
            [sys.executable, "-c", program.replace(":4000", f":{gateway.port}")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "hello\n", done.stderr
        assert len(commands) >= 5
        for command in commands:
            text = command.replace(":4000", f":{gateway.port}")
            done = subprocess.run([bash, "-c", text], capture_output=True, text=True, check=False, timeout=30)
            wanted = "did you mean" if "ecko" in command else "hello"
            assert wanted in done.stdout.lower(), command
        gateway.wait_until(lambda: "80e1afed08e019fc1110464cfa66635c" in gateway.output.read_text())
