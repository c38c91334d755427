"""Completion scripts, run by the shells that are here."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from otelgw.completion import SHELLS, script
from otelgw.config.flags import COMMANDS, FLAGS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_every_command_and_flag(shell: str) -> None:
    text = script(shell)
    for command in COMMANDS:
        assert command.name in text
    for flag in FLAGS:
        for name in flag.names:
            assert name.lstrip("-") in text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_accepted_by_its_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script(shell), text=True, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["otelgw", "che"], ["check"]),
        (["otelgw", "check", "--str"], ["--strict"]),
        (["otelgw", "serve", "--server", "u"], ["uvicorn"]),
        (["otelgw", "completion", "f"], ["fish"]),
        (["otelgw", "--wor"], ["--workers"]),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    line = " ".join(f"'{word}'" for word in words)
    program = f'{script("bash")}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _otelgw; echo "${{COMPREPLY[@]}}"'
    run = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == expected
