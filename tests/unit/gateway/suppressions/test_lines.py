"""An import of suppressions: lines of JSON or a table, read strictly, each line by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput, PayloadTooLarge
from contracts.addresses import MOST_FOREIGN_DOMAINS
from gateway.http import tables
from gateway.http.calls import RawBody
from gateway.http.replies import CSV, NDJSON
from gateway.suppressions import lines
from gateway.suppressions.inputs import COLUMNS, MOST_ERRORS, MOST_LINES


def read(text: str, media_type: str) -> lines.ReadLines:
    return lines.read(RawBody(text.encode(), media_type))


EXPORTED = {
    "id": "01999999-9999-7999-8999-999999999999",
    "address": "+ann@example.com",
    "stream": "bulk",
    "origin": "bounce",
    "reason": "=no",
    "email_id": None,
    "created_at": "2026-11-27T00:00:00Z",
    "expires_at": "2099-01-01T00:00:00Z",
}


def test_an_export_can_be_imported() -> None:
    document = {name: value for name, value in EXPORTED.items() if value is not None}
    row = [tables.guarded(EXPORTED[name] or "") for name in COLUMNS]
    table = tables.written([COLUMNS, row]).decode()
    assert "'=no" in table
    for found in (read(json.dumps(document) + "\n", NDJSON), read(table, CSV)):
        (entry,) = found.entries
        assert (found.errors, entry.address, entry.stream) == ([], "+ann@example.com", "bulk")
        assert (entry.reason, str(entry.expires_at)) == ("=no", "2099-01-01 00:00:00+00:00")


@given(st.text() | st.text("'=+-@\uff1d\t\r\n1a"))
def test_a_cell_is_read_back_as_it_was_and_never_a_formula(cell: str) -> None:
    written = tables.guarded(cell)
    assert tables.unguarded(written) == cell
    assert written[:1] not in tuple("=+@\uff1d\uff0b\uff0d\uff20\t\r\n")


def test_an_export_in_lines_says_null_for_what_is_not_there() -> None:
    (entry,) = read(json.dumps(EXPORTED | {"expires_at": None}), NDJSON).entries
    assert entry.expires_at is None


def test_a_wrong_line_is_named_and_its_neighbours_are_read() -> None:
    text = '{"address":"a@example.com"}\n\nno\n{"address":"b"}\n[1]\n{"address":"c@example.com","x":1}\n'
    found = read(text + '{"address":"a@example.com","address":"b@example.com"}\n', NDJSON)
    assert [entry.address for entry in found.entries] == ["a@example.com"]
    assert [error.pointer for error in found.errors] == ["/3", "/4/address", "/5", "/6/x", "/7"]
    assert found.refused == 5


def test_a_line_that_is_a_text_is_not_taken_for_the_reason_why_it_is_refused() -> None:
    (error,) = read('"all is well"\n', NDJSON).errors
    assert (error.pointer, error.detail) == ("/1", "must be an object")


def test_a_row_of_a_table_needs_the_cells_of_its_head() -> None:
    found = read(
        "address,reason\na@example.com\nb@example.com,no,1\nc@example.com,\x00\nd@example.com,\n", CSV
    )
    assert [error.pointer for error in found.errors] == ["/2", "/3", "/4"]
    assert [(entry.address, entry.reason) for entry in found.entries] == [("d@example.com", "")]


@pytest.mark.parametrize(
    "text",
    ["reason\nno\n", "address,colour\na@example.com,red\n", "address,address\na,b\n", 'address\n"a"b\n'],
    ids=["no address", "an unknown column", "a column twice", "a quote within"],
)
def test_a_table_that_cannot_be_understood_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(InvalidInput):
        read(text, CSV)


def test_a_table_must_be_in_utf8_and_may_begin_with_a_byte_order_mark() -> None:
    with pytest.raises(InvalidInput):
        lines.read(RawBody(b"address\n\xff@example.com\n", CSV))
    assert read("\ufeffaddress\na@example.com\n", CSV).entries[0].address == "a@example.com"


def test_lines_may_begin_with_a_byte_order_mark_too_and_end_as_on_any_system() -> None:
    found = read('\ufeff{"address":"a@example.com"}\r\n{"address":"b@example.com"}\r\n', NDJSON)
    assert [entry.address for entry in found.entries] == ["a@example.com", "b@example.com"]
    assert found.errors == []


def test_an_expired_suppression_is_skipped() -> None:
    found = read('{"address":"a@example.com","expires_at":"2020-01-01T00:00:00Z"}', NDJSON)
    assert (found.entries, found.skipped, found.errors) == ([], 1, [])


def test_an_import_has_a_bounded_number_of_lines_and_of_errors() -> None:
    line = '{"address":"a"}\n'
    found = read(line * MOST_LINES, NDJSON)
    assert (found.refused, len(found.errors)) == (MOST_LINES, MOST_ERRORS)
    with pytest.raises(PayloadTooLarge):
        read(line * (MOST_LINES + 1), NDJSON)


def test_an_import_has_a_bounded_number_of_domains_beyond_ascii() -> None:
    usual = "".join(f"a@x{number}.com\nb@ü.com\n" for number in range(1_000))
    foreign = "".join(f"a@ü{number}.com\n" for number in range(MOST_FOREIGN_DOMAINS - 1))
    assert read("address\n" + usual + foreign, CSV).errors == []
    with pytest.raises(PayloadTooLarge):
        read("address\n" + usual + foreign + "a@é.com\n", CSV)
