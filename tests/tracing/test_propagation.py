"""Trace context in and out, as tables of the published rules."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelgw.tracing.propagation import (
    RANDOM,
    SAMPLED,
    Remote,
    extract,
    extract_baggage,
    inject,
    new_span_id,
    new_trace_id,
    parse_traceparent,
    parse_tracestate,
    ratio_sampled,
)

TRACE = "80e1afed08e019fc1110464cfa66635c"
SPAN = "7a085853722dc6d2"
ALL = ("tracecontext", "baggage", "b3", "b3multi")

# https://www.w3.org/TR/trace-context-2/#traceparent-header-field-values
ACCEPTED = [
    (f"00-{TRACE}-{SPAN}-00", 0),
    (f"00-{TRACE}-{SPAN}-01", SAMPLED),
    (f"00-{TRACE}-{SPAN}-02", RANDOM),
    (f"00-{TRACE}-{SPAN}-03", SAMPLED | RANDOM),
    (f"00-{TRACE}-{SPAN}-ff", SAMPLED | RANDOM),  # unknown flag bits are not carried on
    (f"cc-{TRACE}-{SPAN}-01", SAMPLED),  # a higher version is read as version 00
    (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", SAMPLED),
]
REFUSED = [
    "",
    TRACE,
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-001",
    f"00-{TRACE}-{SPAN}-01-",
    f"00-{TRACE}-{SPAN}-01-extra",
    f"00-{TRACE}-{SPAN}-01.",
    f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
    f"ff-{TRACE}-{SPAN}-01",
    f"0-{TRACE}-{SPAN}-01",
    f"000-{TRACE}-{SPAN}-01",
    f".0-{TRACE}-{SPAN}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN.upper()}-01",
    f"00-{TRACE}-{SPAN}-0X",
    f"00-{TRACE}-{SPAN}-.0",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE[:-1]}.-{SPAN}-01",
    f"00-{TRACE}-{SPAN[:-1]}-01",
    f"00-{TRACE}-{SPAN}0-01",
    f"00_{TRACE}_{SPAN}_01",
    f"00-{TRACE}-{SPAN}-01\n",
]


@pytest.mark.parametrize(("value", "flags"), ACCEPTED)
def test_a_valid_traceparent_is_continued(value: str, flags: int) -> None:
    assert extract([(b"traceparent", value.encode())], ALL) == Remote(TRACE, SPAN, flags)


@pytest.mark.parametrize("value", REFUSED)
def test_an_invalid_traceparent_restarts_the_trace_and_drops_tracestate(value: str) -> None:
    headers = [(b"traceparent", value.encode()), (b"tracestate", b"a=1")]

    assert extract(headers, ALL) is None


def test_two_traceparents_restart_the_trace() -> None:
    value = f"00-{TRACE}-{SPAN}-01".encode()

    assert extract([(b"traceparent", value), (b"traceparent", value)], ALL) is None


def test_optional_white_space_around_a_traceparent_is_no_part_of_it() -> None:
    assert extract([(b"traceparent", f" \t00-{TRACE}-{SPAN}-01 ".encode())], ALL) == Remote(TRACE, SPAN, SAMPLED)


def test_a_lone_tracestate_is_discarded() -> None:
    assert extract([(b"tracestate", b"a=1")], ALL) is None


# https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
TRACESTATES = [
    (["foo=1,bar=2"], "foo=1,bar=2"),
    (["foo=1", "bar=2"], "foo=1,bar=2"),  # several headers are joined in order
    (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    (["foo=1,"], "foo=1"),
    ([",foo=1"], "foo=1"),
    ([""], ""),
    (["foo=1", ""], "foo=1"),
    (["foo=1,foo=1"], "foo=1,foo=1"),  # duplicates are kept as they are
    (["t@v=1"], "t@v=1"),  # level 2 lets @ stand anywhere but first
    (["0a=1"], "0a=1"),
    (["a" * 256 + "=1"], "a" * 256 + "=1"),
    (["a" * 257 + "=1"], ""),
    (["a=" + "v" * 256], "a=" + "v" * 256),
    (["a=" + "v" * 257], ""),
    (["foo =1"], ""),
    (["FOO=1"], ""),
    (["foo.bar=1"], ""),
    (["@foo=1"], ""),
    (["foo"], ""),
    (["=1"], ""),
    (["foo="], ""),
    (["foo=bar=baz"], ""),
    (["foo=\x07"], ""),
    (["foo=bar baz"], "foo=bar baz"),
    ([",".join(f"k{i}=1" for i in range(32))], ",".join(f"k{i}=1" for i in range(32))),
    ([",".join(f"k{i}=1" for i in range(33))], ""),
]


@pytest.mark.parametrize(("values", "expected"), TRACESTATES)
def test_tracestate_is_carried_as_it_came_or_not_at_all(values: list[str], expected: str) -> None:
    assert parse_tracestate([value.encode() for value in values]) == expected


# https://github.com/openzipkin/b3-propagation
B3 = [
    ([(b"b3", f"{TRACE}-{SPAN}-1".encode())], Remote(TRACE, SPAN, SAMPLED)),
    ([(b"b3", f"{TRACE}-{SPAN}-0".encode())], Remote(TRACE, SPAN, 0)),
    ([(b"b3", f"{TRACE}-{SPAN}-d".encode())], Remote(TRACE, SPAN, SAMPLED)),
    ([(b"b3", f"{TRACE}-{SPAN}".encode())], Remote(TRACE, SPAN, SAMPLED)),
    ([(b"b3", f"{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90".encode())], Remote(TRACE, SPAN, SAMPLED)),
    ([(b"b3", f"{TRACE[16:]}-{SPAN}-1".encode())], Remote("0" * 16 + TRACE[16:], SPAN, SAMPLED)),
    ([(b"b3", b"0")], Remote("", "", 0)),
    ([(b"b3", b"1")], None),
    ([(b"b3", b"nonsense")], None),
    ([(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", SPAN.encode())], Remote(TRACE, SPAN, SAMPLED)),
    (
        [(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", SPAN.encode()), (b"x-b3-sampled", b"1")],
        Remote(TRACE, SPAN, SAMPLED),
    ),
    (
        [(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", SPAN.encode()), (b"x-b3-sampled", b"0")],
        Remote(TRACE, SPAN, 0),
    ),
    (
        [(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", SPAN.encode()), (b"x-b3-flags", b"1")],
        Remote(TRACE, SPAN, SAMPLED),
    ),
    ([(b"x-b3-sampled", b"0")], Remote("", "", 0)),
    ([(b"x-b3-traceid", TRACE.encode())], None),
    ([(b"x-b3-traceid", b"0" * 32), (b"x-b3-spanid", SPAN.encode())], None),
]


@pytest.mark.parametrize(("headers", "expected"), B3)
def test_b3_is_read_in_both_its_forms(headers: list[tuple[bytes, bytes]], expected: Remote | None) -> None:
    assert extract(headers, ALL) == expected


def test_w3c_wins_over_b3() -> None:
    headers = [(b"b3", f"{'a' * 32}-{'b' * 16}-1".encode()), (b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())]

    assert extract(headers, ALL) == Remote(TRACE, SPAN, 0)


def test_a_propagator_that_is_not_configured_is_not_read() -> None:
    b3 = [(b"b3", f"{TRACE}-{SPAN}-1".encode())]
    w3c = [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())]

    assert extract(b3, ("tracecontext",)) is None
    assert extract(w3c, ("b3",)) is None


def test_what_is_injected_names_the_given_span_as_parent_in_every_format() -> None:
    headers = dict(inject(("tracecontext", "b3", "b3multi"), TRACE, SPAN, SAMPLED, "foo=1"))

    assert headers == {
        b"traceparent": f"00-{TRACE}-{SPAN}-01".encode(),
        b"tracestate": b"foo=1",
        b"b3": f"{TRACE}-{SPAN}-1".encode(),
        b"x-b3-traceid": TRACE.encode(),
        b"x-b3-spanid": SPAN.encode(),
        b"x-b3-sampled": b"1",
    }


def test_nothing_is_injected_without_a_format() -> None:
    assert inject((), TRACE, SPAN, SAMPLED, "foo=1") == []


@given(st.sampled_from(["tracecontext", "b3", "b3multi"]), st.booleans())
def test_what_goes_out_comes_in_again(name: str, sampled: bool) -> None:
    trace_id, span_id = new_trace_id(), new_span_id()

    headers = inject((name,), trace_id, span_id, int(sampled))

    assert extract(headers, ALL) == Remote(trace_id, span_id, int(sampled))


@given(st.binary(max_size=80))
def test_no_traceparent_breaks_the_parser(value: bytes) -> None:
    parsed = parse_traceparent(value)

    assert parsed is None or (len(parsed[0]), len(parsed[1])) == (32, 16)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled", b"baggage"]
            ),
            st.binary(max_size=120),
        ),
        max_size=6,
    )
)
def test_no_header_breaks_extraction(headers: list[tuple[bytes, bytes]]) -> None:
    remote = extract(headers, ALL)
    extract_baggage(headers, ("a",))

    assert remote is None or set(remote.trace_id + remote.span_id) <= set(string.hexdigits.lower())


def test_only_listed_baggage_is_read() -> None:
    headers = [(b"baggage", b"tenant=acme,secret=hunter2,user=%C3%A9")]

    assert extract_baggage(headers, ("tenant", "user", "absent")) == {"tenant": "acme", "user": "é"}
    assert extract_baggage(headers, ()) == {}


def test_several_baggage_headers_are_one_list() -> None:
    headers = [(b"baggage", b"tenant=acme"), (b"x-other", b"1"), (b"baggage", b"plan=gold")]
    assert extract_baggage(headers, ("tenant", "plan")) == {"tenant": "acme", "plan": "gold"}


def test_ratio_sampling_decides_by_the_trace_id() -> None:
    assert ratio_sampled("0" * 31 + "1", 0.5)
    assert not ratio_sampled("0" * 16 + "f" * 16, 0.5)
    assert ratio_sampled("f" * 32, 1.0)
    assert not ratio_sampled("0" * 32, 0.0)
