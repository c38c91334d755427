"""MLflow: OTLP into an experiment, which is looked up by its name, and made, before the first spans are sent."""

from __future__ import annotations

import threading
import time
from typing import Any

from otelgw_exporters import document, http
from otelgw_exporters.delivery import Reply
from otelgw_exporters.otlp_vendor import ReadableExporter, joined
from otelgw_exporters.posting import explanation

__all__ = ["MlflowExporter"]

_EXPERIMENTS = "/api/2.0/mlflow/experiments"


class MlflowExporter(ReadableExporter):
    """MLflow's tracking server. Keywords are the options of the catalog row ``mlflow``; what is missing is read from
    the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    ROW = "mlflow"

    def __init__(self, *, name: str = "", **given: Any) -> None:
        super().__init__(name=name, **given)
        self._experiment: str = self.options["experiment_id"] or ""
        self._looking = threading.Lock()
        self._json = http.client(
            self.name,
            headers={key: value for key, value in self._http.headers.items() if key == "authorization"}
            | {"content-type": "application/json", "user-agent": "otelgw"},
        )

    def send(self, request: bytes, deadline: float) -> Reply:
        experiment = self._found(min(deadline, time.monotonic() + self.timeout))
        if isinstance(experiment, Reply):
            return experiment
        self._http.headers["x-mlflow-experiment-id"] = experiment
        reply = super().send(request, deadline)
        if reply.kind == "again" and "HTTP 404" in reply.reason and not self.options["experiment_id"]:
            self._experiment = ""  # it was deleted: the next try makes it again
        return reply

    def _found(self, deadline: float) -> str | Reply:
        """Return the experiment's id, or why it could not be had."""
        with self._looking:
            if self._experiment:
                return self._experiment
            wanted = self.options["experiment"]
            quoted = wanted.replace("'", "\\'")
            told = self._ask("search", {"filter": f"name = '{quoted}'", "max_results": 1}, deadline)
            if isinstance(told, Reply):
                return told
            listed = told.get("experiments") or [{}]
            if not listed[0].get("experiment_id"):
                told = self._ask("create", {"name": wanted}, deadline)
                if isinstance(told, Reply):
                    return told
                listed = [told]
            self._experiment = str(listed[0].get("experiment_id") or "")
            return self._experiment or Reply("again", f"there is no experiment {wanted!r} and none could be made")

    def _ask(self, action: str, question: dict[str, Any], deadline: float) -> dict[str, Any] | Reply:
        url = joined(self.options["endpoint"], f"{_EXPERIMENTS}/{action}")
        answer = http.send(self._json, url, document.write(question), deadline, self.mask)
        if isinstance(answer, Reply):
            return answer
        reply = http.classify(answer, self.mask(explanation(answer)))
        if reply.kind != "accepted":
            # Not the spans' fault, whatever it is.
            return Reply("again", f"experiments/{action}: {reply.reason}", reply.after)
        told = document.read(answer.body)
        return told if isinstance(told, dict) else {}

    def shutdown(self) -> None:
        super().shutdown()
        self._json.close()
