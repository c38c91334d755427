"""The base of platforms that take calls as JSON of their own: a row's ``wire`` says where, a class what.

A subclass says what a call is (``document_of``) and, where the vendor's way differs, how several make a body and what
an answer means.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import catalog, document, http, options
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import Outcome, Reply, Verdict
from otelgw_exporters.errors import naming
from otelgw_exporters.otlp_vendor import filled, joined, regional, secrets_of
from otelgw_exporters.posting import Limits, Piece, Posting, classify, explanation, packed, write_array
from otelgw_exporters.reading import Reading
from otelgw_exporters.rows import Wire

__all__ = ["JsonVendor"]


class JsonVendor(Posting):
    """One vendor. Keywords are the options of its catalog row; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or one that is required is missing.
    """

    ROW = ""
    CALLS = 1  # in one request, at most
    CONTENT_TYPE = "application/json"
    HINTS: Mapping[int, str] = {}

    def __init__(self, *, name: str = "", **given: Any) -> None:
        row = catalog.row(self.ROW)
        name = name or row.name
        with naming(name):
            self.options = options.complete(row, given)
        limits = Limits(self.CALLS, self.options["max_request_bytes"])
        super().__init__(name, timeout=self.options["timeout"], limits=limits)
        self.wire = row.wire or Wire("", "")
        pairs = ((key, filled(template, self.options)) for key, template in self.wire.headers)
        headers = {key: value for key, value in pairs if value is not None} | dict(self.options["headers"] or {})
        self.mask = http.Masked({**headers, **secrets_of(row, self.options)})
        self.gzip = self.options.get("compression") == "gzip"
        fixed = {"user-agent": "otelgw", "accept-encoding": "identity", "content-type": self.CONTENT_TYPE}
        self.http = http.client(name, headers=fixed | headers | ({"content-encoding": "gzip"} if self.gzip else {}))
        self.url = joined(self.options["endpoint"] or regional(self.wire, self.options), self.wire.path)
        self._told = threading.local()

    @abstractmethod
    def document_of(self, call: Call, reading: Reading) -> Any:
        """Return what is sent of a call, as JSON's values; None where the call is not for this vendor."""

    def encode(self, call: Call) -> bytes | None:
        made = self.document_of(call, Reading(call.span))
        return None if made is None else document.write(made)

    def body(self, part: Sequence[Piece]) -> bytes:
        """Return the body of a request."""
        return part[0].data if self.CALLS == 1 else write_array(part)

    def judge(self, answer: http.Answer, part: Sequence[Piece]) -> Reply:  # noqa: ARG002 - for subclasses
        """Return what an answer means for everything in its request; ``tell`` says it of single calls."""
        return classify(answer, self.mask(explanation(answer)), self.HINTS)

    def tell(self, call: Call, verdict: Verdict) -> None:
        """Say of one call of an accepted request that it was not taken."""
        self._told.verdicts[call.positions] = verdict

    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        body = self.body(part)
        answer = http.send(self.http, self.url, packed(body) if self.gzip else body, deadline, self.mask)
        return answer if isinstance(answer, Reply) else self.judge(answer, part)

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        self._told.verdicts = {}
        outcome = super().deliver(spans, deadline)
        if not self._told.verdicts:
            return outcome
        verdicts = list(outcome.verdicts)
        for positions, verdict in self._told.verdicts.items():
            for at in positions:
                verdicts[at] = verdict
        return Outcome(tuple(verdicts), outcome.rejected, outcome.message)

    def shutdown(self) -> None:
        super().shutdown()
        self.http.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self.url)}>"
