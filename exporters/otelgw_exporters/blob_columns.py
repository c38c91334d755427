"""Payloads as Parquet: the numbers and names that are asked for as columns, what is nested as JSON text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from otelgw_exporters import document
from otelgw_exporters.errors import DestinationConfigError

__all__ = ["COLUMNS", "Columns"]

# Column -> its type and where it stands in the payload. `micros` is a time, in the payload seconds since the epoch.
COLUMNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "id": ("string", ("id",)),
    "trace_id": ("string", ("trace_id",)),
    "span_id": ("string", ("otelgw", "span_id")),
    "session_id": ("string", ("otelgw", "session_id")),
    "service_name": ("string", ("otelgw", "service_name")),
    "call_type": ("string", ("call_type",)),
    "status": ("string", ("status",)),
    "status_code": ("int64", ("otelgw", "status_code")),
    "error_type": ("string", ("otelgw", "error_type")),
    "error_str": ("string", ("error_str",)),
    "start_time": ("micros", ("startTime",)),
    "end_time": ("micros", ("endTime",)),
    "response_time": ("double", ("response_time",)),
    "time_to_first_chunk": ("double", ("otelgw", "time_to_first_chunk")),
    "model": ("string", ("model",)),
    "model_group": ("string", ("model_group",)),
    "model_id": ("string", ("model_id",)),
    "custom_llm_provider": ("string", ("custom_llm_provider",)),
    "api_base": ("string", ("api_base",)),
    "prompt_tokens": ("int64", ("prompt_tokens",)),
    "completion_tokens": ("int64", ("completion_tokens",)),
    "total_tokens": ("int64", ("total_tokens",)),
    "response_cost": ("double", ("response_cost",)),
    "stream": ("bool", ("stream",)),
    "end_user": ("string", ("end_user",)),
    "key_hash": ("string", ("metadata", "user_api_key_hash")),
    "key_alias": ("string", ("metadata", "user_api_key_alias")),
    "team_id": ("string", ("metadata", "user_api_key_team_id")),
    "team_alias": ("string", ("metadata", "user_api_key_team_alias")),
    "request_tags": ("json", ("request_tags",)),
    "messages": ("json", ("messages",)),
    "response": ("json", ("response",)),
    "model_parameters": ("json", ("model_parameters",)),
    "metadata": ("json", ("metadata",)),
    "hidden_params": ("json", ("hidden_params",)),
    "error_information": ("json", ("error_information",)),
    "otelgw": ("json", ("otelgw",)),
}
_MICRO = 1_000_000
_PYTHON: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "double": (int, float),
    "int64": (int,),
    "micros": (int, float),
    "string": (str,),
}


class Columns:
    """Writes Parquet files with ``COLUMNS``; ``compression`` is gzip, zstd or none.

    Raises:
        DestinationConfigError: pyarrow is missing.
    """

    def __init__(self, name: str, compression: str) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as parquet
        except ImportError:
            raise DestinationConfigError(
                f"destination {name}: layout parquet needs pyarrow: pip install 'otelgw[parquet]'"
            ) from None
        self._arrow, self._parquet = pa, parquet
        types = {
            "bool": pa.bool_(),
            "double": pa.float64(),
            "int64": pa.int64(),
            "json": pa.string(),
            "micros": pa.timestamp("us", tz="UTC"),
            "string": pa.string(),
        }
        self._schema = pa.schema([(column, types[kind]) for column, (kind, _) in COLUMNS.items()])
        self._codec = compression

    def written(self, payloads: Sequence[bytes]) -> bytes:
        """Return a Parquet file with one row a payload."""
        trees = [document.read(text) for text in payloads]
        arrays = [
            self._arrow.array([_value(kind, path, tree) for tree in trees], self._schema.field(column).type)
            for column, (kind, path) in COLUMNS.items()
        ]
        table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
        out = io.BytesIO()
        self._parquet.write_table(table, out, compression=self._codec)
        return out.getvalue()


def _value(kind: str, path: tuple[str, ...], tree: Any) -> Any:
    """Return what stands at ``path``, as the column's type; None where it is missing or of another one."""
    found = tree
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if kind == "json":
        return None if found is None else document.write(found).decode()
    if not isinstance(found, _PYTHON[kind]) or (isinstance(found, bool) and kind != "bool"):
        return None
    number: Any = found
    if kind == "int64":
        return number if -(1 << 63) <= number < 1 << 63 else None
    return round(number * _MICRO) if kind == "micros" else number
