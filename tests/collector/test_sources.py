from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.lane import Item
from otelgw_collector.sources import Sources
from tests.collector.destinations import RESOURCE


def test_where_a_span_is_from_is_found_out_when_it_is_asked() -> None:
    asked: list[str] = []

    def select(subject: str) -> list[ReadableSpan]:
        asked.append(subject)
        return [ReadableSpan(subject, resource=RESOURCE)] * (len(asked) % 3)

    items = [Item("a", end, 5, f"a{end}") for end in (10, 20, 30)]
    sources = Sources(items, select)
    assert asked == []

    assert list(sources) == [items[0], items[1], items[1]]
    assert (len(sources), sources[0], sources[1:]) == (3, items[0], [items[1], items[1]])
    assert asked == ["a10", "a20", "a30"]
