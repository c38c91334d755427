"""Spans on standard output: a tree for people on a terminal, the SDK's JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from otelgw_exporters import catalog, options, semconv
from otelgw_exporters.delivery import Exporter, Outcome, Verdict, all_done
from otelgw_exporters.errors import naming

__all__ = ["ConsoleExporter", "render_json", "render_tree"]

_WIDTH = 120
_WORDS = 200  # characters of a message that are looked at, before the line is cut to the terminal


class ConsoleExporter(Exporter):
    """Writes to ``stream``, by default standard output. Keywords are the options of the catalog row ``console``.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "console", stream: TextIO | None = None, **given: Any) -> None:
        with naming(name):
            chosen = options.resolve(catalog.row("console"), given)
        super().__init__(name)
        self._stream = sys.stdout if stream is None else stream
        self._profile = semconv.profile_of(chosen)
        terminal = self._stream.isatty()
        self._tree = chosen["format"] == "tree" or (chosen["format"] == "auto" and terminal)
        self._color = terminal and chosen["color"]

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:  # noqa: ARG002 - nothing to wait for
        """Write ``spans``; dead if nobody reads the stream any more."""
        if self._tree:
            text = render_tree(spans, width=self._width(), color=self._color)
        else:
            text = "".join(f"{render_json(self._profile(span))}\n" for span in spans)
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            return Outcome((Verdict("dead", f"standard output cannot be written: {error}"),) * len(spans))
        return all_done(len(spans))

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns  # 0: a terminal that does not say
            return max(40, columns) if columns else _WIDTH
        except (OSError, ValueError):
            return _WIDTH


def render_json(span: ReadableSpan) -> str:
    """Return ``span`` in the shape of the SDK's console exporter; a value that JSON lacks becomes text."""
    try:
        return str(span.to_json())
    except (TypeError, ValueError):
        plain = {key: _plain(value) for key, value in (span.attributes or {}).items()}
        return str(semconv.with_attributes(span, plain).to_json())


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def render_tree(spans: Sequence[ReadableSpan], *, width: int = _WIDTH, color: bool = False) -> str:
    """Return one line per span, children under their parents, each trace on its own.

    A line holds name, milliseconds, tokens, cost, status and the first words; it is cut at ``width`` columns.
    """
    present = {span.context.span_id for span in spans if span.context}
    children: dict[int, list[ReadableSpan]] = {}
    roots = []
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        if span.parent is not None and span.parent.span_id in present:
            children.setdefault(span.parent.span_id, []).append(span)
        else:
            roots.append(span)
    lines = [
        (lead + _line(span, width - len(lead), color=color))
        for root in roots
        for lead, span in _walk(root, children, "", "")
    ]
    return "".join(f"{line}\n" for line in lines)


def _walk(
    span: ReadableSpan, children: Mapping[int, list[ReadableSpan]], lead: str, indent: str
) -> Iterator[tuple[str, ReadableSpan]]:
    yield lead, span
    below = children.get(span.context.span_id, []) if span.context else []
    for child in below:
        last = child is below[-1]
        yield from _walk(child, children, f"{indent}{'└─ ' if last else '├─ '}", f"{indent}{'   ' if last else '│  '}")


def _line(span: ReadableSpan, width: int, *, color: bool) -> str:
    attributes = span.attributes or {}
    status, bad = _status(span, attributes)
    facts = [_printable(span.name), _duration(span), _tokens(attributes), _cost(attributes), status]
    plain = "  ".join(filter(None, facts))
    words = _first_words(attributes.get(semconv.GEN_AI_INPUT_MESSAGES))
    if words:
        plain = f"{plain}  “{words}”"
    plain = plain if len(plain) <= width else f"{plain[: width - 1]}…"
    if not color:
        return plain
    # Colours go in after cutting, so that a cut line cannot lose the sequence that ends one.
    plain = plain.replace(f"  {status}", f"  \x1b[{31 if bad else 32}m{status}\x1b[0m", 1) if status else plain
    name = facts[0]
    return f"\x1b[1m{name}\x1b[0m{plain[len(name) :]}" if plain.startswith(name) else plain


def _duration(span: ReadableSpan) -> str:
    if span.start_time is None or span.end_time is None:
        return ""
    return f"{(span.end_time - span.start_time) / 1e6:.1f} ms"


def _tokens(attributes: Mapping[str, Any]) -> str:
    read = attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS)
    written = attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)
    if read is None and written is None:
        return ""
    return f"{'?' if read is None else read}→{'?' if written is None else written} tokens"


def _cost(attributes: Mapping[str, Any]) -> str:
    amount = attributes.get(semconv.GEN_AI_USAGE_COST)
    return f"${amount:.6f}" if isinstance(amount, int | float) else ""


def _status(span: ReadableSpan, attributes: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the status as a word, and whether it is a bad one."""
    error = attributes.get(semconv.ERROR_TYPE)
    code = attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE)
    bad = span.status.status_code is StatusCode.ERROR or error is not None
    words = [str(code) if code is not None else "", _printable(str(error)) if error not in (None, str(code)) else ""]
    return " ".join(filter(None, words)) or ("error" if bad else "ok"), bad or (isinstance(code, int) and code >= 400)


def _first_words(messages: Any) -> str:
    """Return the beginning of the last user message's text; of the last message's, if no user speaks."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return ""
    texts = [(message.get("role"), _text(message)) for message in messages if isinstance(message, Mapping)]
    spoken = [text for role, text in texts if role == "user" and text] or [text for _, text in texts if text]
    return _printable(" ".join(spoken[-1][:_WORDS].split())) if spoken else ""


def _text(message: Mapping[str, Any]) -> str:
    parts = message.get("parts")
    for part in parts if isinstance(parts, Sequence) and not isinstance(parts, str) else ():
        if isinstance(part, Mapping) and isinstance(part.get("content"), str) and part.get("type") == "text":
            return str(part["content"])
    return ""


def _printable(text: str) -> str:
    """Return ``text`` with everything escaped that could move the cursor, change colours or reverse the line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else char.encode("unicode_escape").decode() for char in text)


def _is_harmless(char: str) -> bool:
    return char == " " or unicodedata.category(char)[0] not in "CZ"
