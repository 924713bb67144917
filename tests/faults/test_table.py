"""The table goes between its markers, and nowhere else."""

from __future__ import annotations

import pytest

from faults import table
from faults.ledger import Balance
from faults.load import AnswerCounts
from faults.matrix import CELLS
from faults.matrix import render as render_matrix
from faults.scenario import Row
from faults.scenarios import BY_NAME, SCENARIOS


def row(*, lost: int = 0, complaints: tuple[str, ...] = ()) -> Row:
    answers = AnswerCounts()
    answers.note("202", 0.25)
    balance = Balance(3, 3, 3 - lost, 0, lost, 2, 2, complaints)
    return Row(BY_NAME["calm"], 1, balance, answers, 1.0, 2.0, complaints)


def test_a_row_shows_the_result_of_its_scenario() -> None:
    line = table.render([row()]).splitlines()[2]
    assert line == "| nothing happens | 3 | 0 | 2 (2 explained) | 1.0 s | 202: 1 | 0.25 s |"


def test_a_broken_promise_stands_out() -> None:
    assert "**1**, 1 complaints" in table.render([row(lost=1, complaints=("lost",))])


def test_only_the_text_between_the_markers_changes() -> None:
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.insert(text, "new\n") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        table.insert("no markers", "new\n")


def test_the_document_has_the_table_of_answers_as_they_are_tested() -> None:
    assert render_matrix() in table.DOCUMENT.read_text(encoding="utf-8")
    assert len(render_matrix().splitlines()) == len(CELLS) + 2


def test_the_document_has_a_row_of_every_scenario() -> None:
    text = table.DOCUMENT.read_text(encoding="utf-8")
    found = text.partition(table.BEGIN)[2].partition(table.END)[0]
    rows = [line for line in found.splitlines() if line.startswith("| ")][2:]
    assert [row.removeprefix("| ").partition(" | ")[0] for row in rows] == [one.title for one in SCENARIOS]
