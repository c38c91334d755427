"""The first minute with otelgw: start it without a config, paste the line that it prints, read the trace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.console import printed_spans
from tests.e2e.curl import program
from tests.e2e.tree import Node, trees
from tests.servers.gateway import GatewayProcess
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
STATE = r"state: \S+"


def paste(line: str, directory: Path) -> str:
    """Run a line in a shell, as somebody who pastes it; return what it prints."""
    program()
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(answer: str) -> str:
    return str(json.loads(answer)["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(None, tmp_path_factory.mktemp("run")) as process:
        yield process


def test_the_start_line_says_what_it_serves_and_where_to(running: GatewayProcess) -> None:
    first, _, rest = running.errors.read_text().partition("\n")
    facts = f"{re.escape(running.url)}  models: echo  destinations: console  auth: off \\(loopback only\\)  content: on"
    assert re.fullmatch(rf"otelgw \d+\.\d+\.\d+  {facts}  {STATE}", first)
    assert rest.startswith("try:  curl -s ")


def test_the_pasted_line_gets_an_answer_and_leaves_a_trace_on_standard_output(
    running: GatewayProcess, tmp_path: Path
) -> None:
    (line,) = re.findall(r"^try:  (.*)$", running.errors.read_text(), re.MULTILINE)
    before = len(printed_spans(running.output.read_text()))
    assert said(paste(line, tmp_path)) == "hello"
    running.wait_until(lambda: len(printed_spans(running.output.read_text())) == before + 3)
    (seen,) = trees(map(Node.of_console, printed_spans(running.output.read_text())[before:]))
    assert [span.name for span in seen.spans] == ["POST /v1/chat/completions", "chat echo", "POST"]
    assert seen.usage() == (1, 1)
    assert seen.said() == "hello"


def test_the_readmes_curl_lines_work_as_they_stand(running: GatewayProcess, tmp_path: Path) -> None:
    blocks = [text for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if text.startswith("curl ")]
    assert len(blocks) >= 2
    for block in blocks:
        assert said(paste(block.replace("http://127.0.0.1:4000", running.url), tmp_path)) == "hello"
    traced = next(block for block in blocks if "traceparent" in block)
    (trace_id,) = re.findall(r"traceparent: 00-([0-9a-f]{32})-", traced)
    running.wait_until(lambda: trace_id in running.output.read_text())


def test_the_readmes_python_works_as_it_stands(running: GatewayProcess, tmp_path: Path) -> None:
    block = next(text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "OpenAI(" in text)
    script = block.replace("http://127.0.0.1:4000", running.url)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_a_second_gateway_on_the_port_says_which_port_and_ends(running: GatewayProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "otelgw.cli", "serve", "--port", str(running.port)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert str(running.port) in done.stderr
    assert "Traceback" not in done.stderr


class Terminal(NamedTuple):
    """A gateway whose output is a terminal; ``shown`` is what stands on it so far."""

    process: subprocess.Popen[bytes]
    url: str
    shown: bytearray

    def text(self) -> str:
        return self.shown.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self.text(), re.MULTILINE)):
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)
        return found[0]


@contextlib.contextmanager
def on_a_terminal(command: list[str], directory: Path, port: int, **environment: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    given = {"PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "xterm-256color"}
    given |= {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment}
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(master, 65536):
                shown.extend(data)

    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=given, start_new_session=True
    )
    os.close(slave)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield Terminal(process, f"http://127.0.0.1:{port}", shown)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        reader.join(5)
        os.close(master)


SERVE = [sys.executable, "-m", "otelgw.cli", "serve"]


@pytest.mark.parametrize("plain", [False, True], ids=["coloured", "NO_COLOR"])
def test_on_a_terminal_a_trace_is_a_tree_of_one_line_a_span(tmp_path: Path, plain: bool) -> None:
    port = free_port()
    environment = {"NO_COLOR": "1"} if plain else {}
    with on_a_terminal([*SERVE, "--port", str(port)], tmp_path, port, **environment) as terminal:
        line = terminal.wait_for(r"^try:  .*$").removeprefix("try:  ")
        assert said(paste(line, tmp_path)) == "hello"
        terminal.wait_for(r"chat echo.*\n.*POST.*\n")
        text = terminal.text()
    tree = text[text.index("try:") :]
    assert ("\x1b[" in tree) is not plain
    server, model, attempt = re.sub(r"\x1b\[[0-9;]*m", "", tree).strip().splitlines()[1:4]
    assert server.startswith("POST /v1/chat/completions")
    assert "chat echo" in model
    assert "hello" in model
    assert "POST" in attempt
    for shown in (server, model, attempt):
        assert re.search(r"\d(?:\.\d+)? ?ms", shown)
    indents = [len(shown) - len(shown.lstrip(" │├└─")) for shown in (server, model, attempt)]
    assert indents[0] < indents[1] < indents[2]
    assert '"trace_id"' not in text


def test_control_c_on_a_terminal_ends_it_in_order(tmp_path: Path) -> None:
    port = free_port()
    with on_a_terminal([*SERVE, "--port", str(port)], tmp_path, port) as terminal:
        terminal.wait_for(r"^try:  .*$")
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.text()


def test_make_run_starts_the_gateway_with_its_arguments(tmp_path: Path) -> None:
    """The Makefile's own recipe, on an environment that is installed already."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "otelgw").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m otelgw.cli "$@"\n')
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for path in (venv / "bin").iterdir():
        path.chmod(0o755)
    (venv / ".installed").touch()
    port = free_port()
    command = [make, "-C", str(ROOT), "run", f"VENV={venv}", f"ARGS=--port {port}"]
    with on_a_terminal(command, tmp_path, port, OTELGW_STATE_DIR=str(tmp_path / "state")) as terminal:
        line = terminal.wait_for(r"^try:  .*$").removeprefix("try:  ")
        assert f":{port}/" in line
        assert said(paste(line, tmp_path)) == "hello"
        terminal.wait_for("chat echo")
