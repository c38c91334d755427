"""``otelgw collector``: print a Collector's config, or check one with the real program where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from otelgw.collector_config import faults, parse, variables
from otelgw.errors import ConfigError, StartError

__all__ = ["PROGRAMS", "Report", "check", "find_program"]

PROGRAMS = ("otelcol-contrib", "otelcol")
_BUILT = "otelcol-otelgw"  # as built from collector/builder.yaml
_PATIENCE = 60.0  # seconds
_PREFIX = re.compile(
    r"^(?:Error: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d |failed to get config: |cannot unmarshal the configuration: |"
    r"invalid configuration: |- )+"
)
_WITHIN = re.compile(r"decoding failed due to the following error\(s\):")
_UNKNOWN_TYPE = re.compile(r"'(\w+)' unknown type: \"[^\"]+\" for id: \"([^\"]+)\"")
_OPENED = re.compile(r"'(\w+)' error reading configuration for \"([^\"]+)\"")
_QUOTED = re.compile(r"'([^']+)' (.*)")


class Report(NamedTuple):
    """What a check that found no fault can say of itself."""

    by: str
    notes: tuple[str, ...]

    def text(self, path: str) -> str:
        """Return what was checked, and what was not."""
        if self.by:
            return f"{path} is valid, says {self.by}"
        return (
            f"{path} has the shape of a config: only YAML, component names and the pipelines' references were checked. "
            f"No Collector is here to check the settings with ({', '.join(PROGRAMS)} on PATH, or --otelcol)"
        )


def find_program(given: str, environment: Mapping[str, str]) -> Path | None:
    """Return the Collector to check with: ``given``, one on PATH, or the one that the project's tests have built.

    Raises:
        ConfigError: ``given`` is no program.
    """
    if given:
        found = shutil.which(given, path=environment.get("PATH"))
        if found is None:
            raise ConfigError([f"--otelcol: there is no program {given}"])
        return Path(found)
    for name in PROGRAMS:
        if found := shutil.which(name, path=environment.get("PATH")):
            return Path(found)
    root = environment.get("OTELGW_CACHE", "").strip()
    home = environment.get("HOME", "").strip()
    cache = Path(root) if root else Path(home, ".cache", "otelgw") if home else None
    built = sorted(cache.glob(f"collector/*/{_BUILT}"), key=lambda path: path.stat().st_mtime) if cache else []
    return built[-1] if built else None


def check(path: str, given: str, environment: Mapping[str, str]) -> Report:
    """Check the Collector's config in the file ``path``.

    Raises:
        ConfigError: it is broken, or cannot be read; one problem for each fault, after its path.
        StartError: the Collector could not be asked.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([f"{path}: {reason}"]) from None
    tree, problems = parse(text)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    unset = sorted(name for name in variables(tree) if not environment.get(name, "").strip())
    notes = (f"not set here: {', '.join(unset)}",) if unset else ()
    found = faults(tree)
    program = find_program(given, environment)
    if program is None:
        if found:
            raise ConfigError([f"{path}: {each}" for each in found])
        return Report("", notes)
    said = _ask(program, path, environment)
    if said:
        told = [each.partition(":")[0] for each in found]  # a path that the Collector has only the beginning of, too
        rest = [each for each in said if not any(known.startswith(each.partition(":")[0]) for known in told)]
        raise ConfigError([f"{path}: {each}" for each in (*found, *rest)] + [f"{path}: {note}" for note in notes])
    return Report(str(program), notes)


def _ask(program: Path, path: str, environment: Mapping[str, str]) -> list[str]:
    """Return what ``validate`` finds wrong; nothing if it is content."""
    command = [str(program), "validate", "--config", path]
    try:
        run = subprocess.run(  # noqa: S603 - the user's own program
            command, capture_output=True, text=True, timeout=_PATIENCE, env=dict(environment), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(
            f"{program} could not be asked ({type(error).__name__}); name another with --otelcol"
        ) from None
    return list(_faults_of(run.stderr + run.stdout, program.name)) or ["it is refused"] if run.returncode else []


def _faults_of(output: str, program: str) -> Iterator[str]:
    """Yield the faults in the Collector's own words, each after its path.

    It writes ``exporters::otlp: ...`` for what is invalid, and for what it cannot read ``'exporters' error reading
    configuration for "otlp": ...`` with what is within on the lines after.
    """
    path: list[str] = []
    for line in output.splitlines():
        text = _PREFIX.sub("", line.strip()).strip()
        if not text or _WITHIN.fullmatch(text):
            continue
        if unknown := _UNKNOWN_TYPE.match(text):
            yield f"{unknown[1]}.{unknown[2]}: unknown component, to {program}"
        elif opened := _OPENED.match(text):
            path = [opened[1], opened[2]]
        elif quoted := _QUOTED.match(text):
            below = [] if quoted[1].endswith(".Config") else [quoted[1]]
            yield f"{'.'.join((*path, *below))}: {quoted[2]}"
        else:
            head, colon, rest = text.partition(": ")
            yield f"{head.replace('::', '.')}{colon}{rest}"
