"""Log lines: two forms, one line a record, nothing that a caller could forge."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw import logs


@pytest.fixture(autouse=True)
def _own_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {
        name: logging.getLogger(name).level for name in ("httpx", "hypercorn.error", "uvicorn", "hpack", "asyncio")
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def _record(message: str, *arguments: object, error: BaseException | None = None, **extra: object) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("otelgw.test", logging.WARNING, __file__, 1, message, arguments, info)
    record.__dict__.update(extra)
    return record


def _raised(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def _fields(line: str) -> dict[str, str]:
    """Read a logfmt line as a strict reader does."""
    found, at = {}, 0
    pair = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]*)(?: |$)')
    while at < len(line):
        match = pair.match(line, at)
        assert match is not None, line[at:]
        found[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        at = match.end()
    return found


FORMS = {
    "logfmt": lambda record: _fields(logs.LogfmtFormatter().format(record)),
    "json": lambda record: json.loads(logs.JsonFormatter().format(record)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_line_has_time_level_logger_message_and_the_ids_that_are_known(form: str) -> None:
    fields = FORMS[form](_record("hello %s", "world", trace_id="4bf9", call_id="c-1", model="gpt", unknown="no"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("ts"))
    assert fields == {
        "level": "warning",
        "logger": "otelgw.test",
        "msg": "hello world",
        "trace_id": "4bf9",
        "call_id": "c-1",
        "model": "gpt",
    }


HOSTILE = [
    "a\nts=1 level=error msg=forged",
    "a\r\nb",
    'x" level=error msg="y',
    "a=b",
    "back\\slash",
    "\x1b[31mred\x1b[0m",
    "\x00\x07\x7f\x9b",
    "line\u2028separator\u2029\x85",
    "\ud800",
    "",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_hostile_value_stays_one_value_on_one_printable_line(form: str, value: str) -> None:
    record = _record("%s", value, model=value)
    line = {"logfmt": logs.LogfmtFormatter(), "json": logs.JsonFormatter()}[form].format(record)
    assert line.isascii()
    assert "\x7f" not in line if form == "logfmt" else True
    assert not re.search(r"[\x00-\x1f]", line)
    fields = FORMS[form](record)
    assert fields["msg"] == fields["model"] == value
    assert fields["level"] == "warning"


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_can_be_read_back(message: str, model: str) -> None:
    record = _record("%s", message, model=model)
    for read in FORMS.values():
        fields = read(record)
        assert (fields["msg"], fields["model"]) == (message, model)


def test_long_values_are_cut() -> None:
    fields = FORMS["json"](_record("x" * 100_000, model="y" * 100_000))
    assert len(fields["msg"]) == len(fields["model"]) == 2000


def test_an_error_is_told_by_its_class_and_place_never_by_its_text() -> None:
    secret = "sk-live-canary"
    error = _raised(lambda: {}[secret])
    for formatter in (logs.LogfmtFormatter(), logs.JsonFormatter()):
        line = formatter.format(_record("failed", error=error))
        assert secret not in line
        assert "KeyError" in line
        assert "test_logs.py:" in line


def test_an_error_in_a_group_is_told_by_itself() -> None:
    group = ExceptionGroup("unhandled errors", [ExceptionGroup("more", [_raised(lambda: 1 // 0)])])
    fields = FORMS["json"](_record("failed", error=group))
    assert fields["error"] == "ZeroDivisionError"
    assert "test_logs.py:" in fields["at"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "json_lines", "is_json"),
    [(_Terminal, None, False), (io.StringIO, None, True), (_Terminal, True, True), (io.StringIO, False, False)],
)
def test_a_terminal_gets_logfmt_and_anything_else_json(
    stream: type[io.StringIO], json_lines: bool | None, is_json: bool
) -> None:
    target = stream()
    logs.configure("info", json_lines=json_lines, stream=target)
    logging.getLogger("otelgw.x").info("hello")
    line = target.getvalue()
    assert line.startswith("{") == is_json
    assert line.count("\n") == 1


def test_the_level_holds_and_libraries_that_log_what_passes_stay_silent() -> None:
    target = io.StringIO()
    logs.configure("debug", stream=target)
    for name in ("hpack", "httpx", "hypercorn.error", "uvicorn.error", "asyncio"):
        logging.getLogger(name).info("authorization: Bearer canary")
    logging.getLogger("otelgw").debug("seen")
    assert "canary" not in target.getvalue()
    assert "seen" in target.getvalue()
    logs.configure("error", stream=target)
    logging.getLogger("otelgw").warning("unseen")
    assert "unseen" not in target.getvalue()
