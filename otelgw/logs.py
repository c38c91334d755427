"""Log lines: logfmt on a terminal, JSON otherwise, on standard error.

Each line has ts, level, logger, msg and, where known, trace_id, span_id, call_id, model. Values from outside are
escaped and cut, so that no caller can forge a line. Bodies and credentials are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

__all__ = ["JsonFormatter", "LogfmtFormatter", "configure"]

_FIELDS = ("trace_id", "span_id", "call_id", "model", "destination")
_MAX_VALUE = 2000


def _facts(record: logging.LogRecord) -> dict[str, str]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    facts = {
        "ts": f"{moment}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage()[:_MAX_VALUE],
    }
    for name in _FIELDS:
        value = getattr(record, name, None)
        if value is not None:
            facts[name] = str(value)[:_MAX_VALUE]
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        facts["error"] = type(error).__name__
        facts["at"] = _where(error)
    return facts


def _where(error: BaseException) -> str:
    """Return the innermost places of the traceback: file names and lines, never values."""
    traceback = error.__traceback__
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return " < ".join(reversed(places[-6:]))


class LogfmtFormatter(logging.Formatter):
    """``ts=… level=info msg="…"``; values are quoted as JSON strings where they need it."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in _facts(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_facts(record))


def _quoted(value: str) -> str:
    plain = value and value.isascii() and value.isprintable() and not set(value) & set(' "=\\')
    # JSON leaves DEL as it is; a terminal does not.
    return value if plain else json.dumps(value).replace("\x7f", "\\u007f")


def configure(level: str = "info", *, json_lines: bool | None = None, stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (standard error) in the form that suits it."""
    target = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(target)
    as_json = not target.isatty() if json_lines is None else json_lines
    handler.setFormatter(JsonFormatter() if as_json else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "hypercorn.error", "uvicorn", "uvicorn.error", "hpack", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
