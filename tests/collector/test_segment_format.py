from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelgw_collector.segment_format import (
    FORMAT,
    HEADER,
    OTLP,
    OVERHEAD,
    RECORD,
    pack_entry,
    pack_header,
    parse,
    read_header,
    salvage_marker,
)

MARKER = b"mark"
payload_lists = st.lists(st.binary(max_size=100), min_size=1, max_size=8)
kinds = st.integers(RECORD, OTLP)


def packed(payloads: list[bytes], kind: int = RECORD) -> bytes:
    return b"".join(pack_entry(MARKER, payload, kind) + payload for payload in payloads)


@given(st.binary(min_size=8, max_size=8))
def test_a_header_says_its_id_and_an_unknown_format_is_not_supported(identity: bytes) -> None:
    told, newer = read_header(pack_header(identity)), read_header(pack_header(identity, FORMAT + 1))

    assert told is not None
    assert newer is not None
    assert (told.identity, told.marker, told.supported) == (identity, identity[:4], True)
    assert (newer.identity, newer.supported) == (identity, False)


@given(st.integers(0, HEADER - 1), st.integers(1, 255))
def test_a_header_with_one_byte_changed_or_missing_says_nothing(at: int, change: int) -> None:
    header = bytearray(pack_header(b"12345678"))
    header[at] ^= change

    assert read_header(bytes(header)) is None
    assert read_header(pack_header(b"12345678")[:at]) is None


@given(payload_lists, kinds, st.integers(0, 1000), st.data())
def test_records_are_parsed_up_to_the_first_that_is_not_all_there(
    payloads: list[bytes], kind: int, base: int, data: st.DataObject
) -> None:
    whole = packed(payloads, kind)
    cut = data.draw(st.integers(0, len(whole)))

    entries, consumed, skipped = parse(whole[:cut], base, MARKER)

    assert [entry.payload for entry in entries] == payloads[: len(entries)]
    assert all(entry.kind == kind for entry in entries)
    assert consumed == sum(OVERHEAD + len(entry.payload) for entry in entries) <= cut
    assert [entry.end for entry in entries][-1:] == [base + consumed][: len(entries)]
    assert skipped == 0
    assert len(entries) == len(payloads) or consumed + OVERHEAD + len(payloads[len(entries)]) > cut


@given(st.binary(max_size=400), st.binary(min_size=4, max_size=4))
def test_any_bytes_at_all_are_parsed_without_an_exception(buffer: bytes, marker: bytes) -> None:
    entries, consumed, skipped = parse(buffer, 0, marker)

    assert 0 <= skipped <= consumed <= len(buffer)
    assert sum(OVERHEAD + len(entry.payload) for entry in entries) == consumed - skipped


@given(payload_lists, kinds, st.binary(max_size=40))
def test_a_lost_marker_is_found_in_any_record(payloads: list[bytes], kind: int, noise: bytes) -> None:
    assert salvage_marker(noise + packed(payloads, kind)) == MARKER
