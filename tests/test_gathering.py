"""Records that were made ready together, on their way through lanes that do not all get the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.gathering import gatherer, together
from otelgw.selection import Ready, Trace
from otelgw_exporters.otlp_wire import Encoder
from otelgw_exporters.sheaf import Bundle, Sheaves, gathered
from tests.exporters.samples import span

encode = Encoder(lambda attributes: attributes)
gather = gatherer(gathered)
assert gather is not None


def ready(number: int, spans: int, *, bundled: bool = False) -> Ready:
    """Return a record that was made ready span by span, or all of it at once as an ordinary one."""
    made = [encode.ready(span(10 * number + each + 1)) for each in range(spans)]
    if not bundled or not made:
        return Ready(made, number)
    whole = made[0].encoded._replace(span=b"".join(each.encoded.span for each in made))
    return Ready(Bundle(whole, spans), number)


def flat(traces: list[Trace]) -> list[ReadableSpan]:
    return [each for trace in traces for each in trace.spans]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8),
    st.lists(st.tuples(st.sampled_from(["keep", "drop", "other"]), st.booleans()), min_size=8, max_size=8),
    st.integers(0, 8),
)
def test_each_lane_gets_the_spans_of_its_records_whatever_was_put_together_for_others(
    sizes: list[tuple[int, bool]], fates: list[tuple[str, bool]], cut: int
) -> None:
    for_all: list[Trace] = [ready(number, size, bundled=bundled) for number, (size, bundled) in enumerate(sizes)]
    mine: list[Trace] = []
    for trace, (fate, _) in zip(for_all, fates, strict=False):
        # Chosen as by the other lane, not chosen at all, or another choice of its spans.
        if fate != "drop":
            mine.append(trace if fate == "keep" else Ready(trace.spans[1:], 0))
    first_mine = fates[0][1]
    for each in (mine, for_all) if first_mine else (for_all, mine):
        gather(each)

    for lane in (for_all, mine, for_all[cut:], mine[cut:], for_all[:cut], mine[:cut], for_all + mine):
        found = together(lane)
        assert found is not None
        assert list(found) == flat(lane)
        encoded, _ = found.encoded(encode) if isinstance(found, Sheaves) else ([], 0)
        assert b"".join(piece.span for piece in encoded) == b"".join(encode(each).span for each in flat(lane))


@pytest.mark.parametrize("every", [1, 2, 64], ids=["ordinary", "some ordinary", "none ordinary"])
def test_records_that_are_together_are_one_part_of_the_batch(every: int) -> None:
    traces: list[Trace] = [ready(number, 3, bundled=number % every == 0) for number in range(32)]
    gather(traces)

    found = together(traces)

    assert isinstance(found, Sheaves)
    assert len(found.encoded(encode)[0]) == 1


def test_a_record_that_is_not_ready_leaves_all_to_the_selection_one_by_one() -> None:
    traces: list[Trace] = [ready(1, 3), Trace(None, [span(9)]), ready(2, 3), ready(3, 1)]
    gather(traces)

    assert together(traces) is None
    found = together(traces[2:])
    assert found is not None
    assert list(found) == flat(traces[2:])


def test_what_gathers_nothing_needs_no_gatherer() -> None:
    assert gatherer(None) is None
