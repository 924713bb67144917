"""The table of the benchmark: a line for each rate, and for each that could not be measured."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.load import LoadResult, median
from benchmarks.measures import (
    HEADINGS,
    WAIT_HEADINGS,
    Failed,
    Measure,
    Wait,
    attempt,
    failed,
    has_failed,
    table,
)


async def measured(load: LoadResult) -> LoadResult:
    return load


async def hanging() -> LoadResult:
    await asyncio.Event().wait()
    raise AssertionError("never comes here")


async def broken() -> LoadResult:
    raise ConnectionError("no consumer\non the | queue")


def test_a_line_gives_both_rates_their_cost_and_the_ratio() -> None:
    one = Measure("mails", LoadResult(1_500.4, 812.3), "Celery", LoadResult(500), 2, 1_800)
    assert one.cells == (
        "mails",
        *("1,500", "812"),
        "Celery",
        *("500", ""),
        "3.00",
        "≥ 2 x met, ≥ 1,800/s MISSED",
    )


def test_a_wanted_rate_is_named_at_the_pace_of_the_machine_too() -> None:
    one = Measure("mails", LoadResult(950), "Celery", LoadResult(500), floor=1_800, pace=0.5)
    assert one.verdicts == "≥ 1,800/s MISSED, at a pace of 0.50 ≥ 900/s met"


def test_a_bound_of_memory_is_met_below_it() -> None:
    verdicts = [
        Measure("lines", LoadResult(1), "fewer", LoadResult(1), mib=mib, most_mib=200).verdicts
        for mib in (199, 200)
    ]
    assert verdicts == ["< 200 MiB met", "< 200 MiB MISSED"]


def test_a_line_without_an_expectation_says_so() -> None:
    assert Measure("rows", LoadResult(1), "COPY", LoadResult(2)).verdicts == "none"


async def test_a_peer_that_breaks_has_a_line_that_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = await attempt(broken(), timeout_s=5)
    one = Measure("mails", LoadResult(10), "Celery", theirs, 2, 5)
    assert one.cells[4:6] == ("failed", "")
    assert one.ratio is None
    assert one.verdicts == "≥ 2 x NOT MEASURED, ≥ 5/s met, ConnectionError: no consumer on the queue"
    assert "no consumer" in capsys.readouterr().err


async def test_a_peer_that_hangs_is_given_up() -> None:
    assert await attempt(hanging(), timeout_s=0.01) == Failed("TimeoutError")


async def test_measurements_are_returned_unchanged() -> None:
    assert await attempt(measured(LoadResult(3, 4)), timeout_s=5) == LoadResult(3, 4)


@pytest.mark.parametrize("text", ["/root/folder is missing", "x" * 200, ""])
def test_a_reason_shows_no_path_and_stays_short(text: str) -> None:
    assert failed(OSError(text)) == Failed("OSError")


def test_a_wait_is_judged_by_its_longest_time_and_shown_beside_the_same_alone() -> None:
    assert Wait("ten items", [0.2, 0.99, 0.3], [0.1, 0.15], 1).cells == (
        "ten items",
        *("300", "990", "990"),
        *("125", "150", "150"),
        "< 1 s met",
    )
    assert Wait("ten items", [0.1, 1.0], [0.1], 1).cells[-1] == "< 1 s MISSED"


def test_a_wait_of_some_milliseconds_has_tenths_of_them() -> None:
    one = Wait("a claim", [0.0042, 0.0048, 0.021], [0.001], 0.005, share=0.5)
    assert one.cells == ("a claim", "4.8", "21", "21", "1.0", "1.0", "1.0", "50 % < 5 ms met")


def test_a_wait_of_which_a_share_is_asked_for_may_be_longer_in_few_cases() -> None:
    times = [each / 1000 for each in range(1, 201)]
    one = Wait("a mail", [*times[:-2], 5, 9], times, 1, share=0.99)
    assert one.cells == ("a mail", "100", "198", "9,000", "100", "198", "200", "99 % < 1 s met")
    assert Wait("a mail", [*times[:-3], 5, 5, 5], times, 1, share=0.99).cells[-1] == "99 % < 1 s MISSED"


@pytest.mark.parametrize(
    ("headings", "line"),
    [
        (HEADINGS, Measure("a", LoadResult(1), "b", Failed("OSError"))),
        (WAIT_HEADINGS, Wait("ten items", [0.2], [0.1], 1)),
    ],
)
def test_a_table_has_a_cell_under_each_heading(headings: tuple[str, ...], line: Measure | Wait) -> None:
    lines = table(headings, [line]).splitlines()
    assert len(lines) == 3
    assert {line.count("|") for line in lines} == {len(headings) + 1}


def test_a_run_with_a_line_that_failed_has_failed() -> None:
    fine = Measure("a", LoadResult(1), "b", LoadResult(2))
    assert not has_failed([fine])
    assert has_failed([fine, Measure("a", LoadResult(1), "b", Failed("OSError"))])


def test_the_median_of_rounds_without_cost_has_none() -> None:
    assert median([LoadResult(1), LoadResult(5), LoadResult(2)]) == LoadResult(2)
    assert median([LoadResult(1, 10), LoadResult(5, 30), LoadResult(2, 20)]) == LoadResult(2, 20)
