"""Results as lines and as a table: exact, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from chassis.deadlines import Deadline
from gateway.batches.results import cells_of, split_page, written_as
from gateway.http import tables
from gateway.http.replies import CSV, NDJSON


def line(**changes: Any) -> bytes:
    row = {"position": 7, "custom_id": "a", "status": "succeeded", "result": 1, "error": None, "attempts": 1}
    return orjson.dumps({**row, **changes})


def test_a_row_has_the_columns_of_the_table() -> None:
    assert cells_of(line()) == ["7", "a", "succeeded", "1", "", "", "1"]
    error = {"code": "timeout", "detail": "not done after 30 s"}
    failed = line(status="failed", custom_id=None, result=None, error=error, attempts=4)
    assert cells_of(failed) == ["7", "", "failed", "4", "timeout", "not done after 30 s", ""]


@pytest.mark.parametrize("written", ["1.10", "1e5", '{"a" : 1.0}', '"\\u00e9"', "[1, 2]", "-0.50"])
def test_a_result_is_the_text_that_was_stored(written: str) -> None:
    row = line(result="#").replace(b'"#"', written.encode())
    assert cells_of(row)[-1] == written
    page = b'{"data":[\n' + row + b",\n" + row + b'\n],"next_cursor":"7","complete":true}'
    assert split_page(page) == (row + b"\n" + row + b"\n", "7")


def test_the_last_page_has_no_cursor_and_maybe_no_rows() -> None:
    page = b'{"data":[\n' + line() + b'\n],"next_cursor":null,"complete":true}'
    assert split_page(page) == (line() + b"\n", None)
    assert split_page(b'{"data":[],"next_cursor":null,"complete":true}') == (b"", None)
    assert split_page(b'{"data":[],"next_cursor":"9","complete":false}') == (b"", "9")


def test_a_page_of_the_previous_release_is_still_parsed() -> None:
    page = b'{"data":[' + line() + b"," + line() + b'],"next_cursor":null,"complete":true}'
    assert split_page(page) == ((line() + b"\n") * 2, None)


async def test_a_page_with_very_many_values_is_written_as_a_table_in_a_thread() -> None:
    def threads() -> float:
        return REGISTRY.get_sample_value("tickwire_thread_wait_seconds_count") or 0

    few, many = line() + b"\n", line(result=[[]] * 50_000) + b"\n"
    found: list[tuple[float, bool]] = []
    for media_type, lines in ((CSV, few), (CSV, many), (NDJSON, many)):
        before = threads()
        written = await written_as(media_type, lines, Deadline.after(20), is_first=False)
        table = tables.written(map(cells_of, lines.splitlines()))
        found.append((threads() - before, written == (table if media_type == CSV else lines)))
    assert found == [(0, True), (1, True), (0, True)]


@pytest.mark.parametrize("formula", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_a_cell_that_a_spreadsheet_would_run_is_guarded(formula: str) -> None:
    cells = cells_of(line(custom_id=formula, error={"code": formula, "detail": formula}))
    assert (cells[1], cells[4], cells[5]) == (f"'{formula}",) * 3


@pytest.mark.parametrize("number", ["-1", "-1.5", "-2e10"])
def test_a_negative_number_is_no_formula(number: str) -> None:
    assert cells_of(line(custom_id=number))[1] == number


# What a spreadsheet, a reader of CSV or one of JSON may take for something else.
_PARTS = st.sampled_from(
    ["=", "+", "-", "@", "'", '"', ",", ";", "\r", "\n", "\t", " ", "1", "e", "ä", "\uff1d", "\u2028"]
)
_TEXTS = st.lists(_PARTS, max_size=6).map("".join)
_WRITTEN = st.one_of(
    _TEXTS.map(lambda text: orjson.dumps(text).decode()),
    st.sampled_from(
        ["1.10", "-0.50", "-1", "1e5", "1180591620717411303424", "null", "true", "[1, 2]", '{"a" : "=1"}']
    ),
)


@given(st.lists(st.tuples(_TEXTS, _TEXTS, _WRITTEN), max_size=4))
@example([("'=1", "\r\n", "-1"), ("''", '","', '"=cmd"')])
def test_a_table_that_is_read_back_has_what_was_stored(rows: list[tuple[str, str, str]]) -> None:
    lines = [
        line(custom_id=name, error={"code": "x", "detail": detail}, result="#").replace(
            b'"#"', written.encode()
        )
        for name, detail, written in rows
    ]
    table = tables.written(map(cells_of, lines)).decode()
    found = [[tables.unguarded(cell) for cell in row] for row in csv.reader(io.StringIO(table, newline=""))]
    assert [(row[1], row[5]) for row in found] == [(name, detail) for name, detail, _ in rows]
    # Without a result the cell is empty.
    assert [row[6] for row in found] == ["" if written == "null" else written for *_, written in rows]
    for row in csv.reader(io.StringIO(table, newline="")):
        assert not any(cell[:1] in ("=", "+", "@", "\t", "\r") for cell in row)
