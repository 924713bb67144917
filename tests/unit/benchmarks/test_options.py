"""The options of `make bench`, its progress and its page."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as bench
from benchmarks import pace, page
from benchmarks.load import LoadResult
from benchmarks.measures import Failed, Measure, Wait
from benchmarks.parts import PARTS, Report


def test_all_parts_are_measured_unless_some_are_named() -> None:
    assert bench.parse([]).parts == [*PARTS]
    assert bench.parse(["--only", "emails", "--only", "batches"]).parts == ["batches", "emails"]


def test_the_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse(["--help"])
    written = capsys.readouterr().out
    assert [part for part in PARTS if part not in written] == []


async def test_a_part_that_fails_has_a_line_and_the_next_one_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def breaks(scale: float, report: Report) -> None:
        report.add(Measure("before", LoadResult(9), "peer", LoadResult(1)))
        raise OSError("no such server")

    async def works(scale: float, report: Report) -> None:
        report.say("a step")
        report.add(Measure("works", LoadResult(scale), "peer", LoadResult(1)))

    async def one() -> float:
        return 1.0

    monkeypatch.setattr(pace, "measure", one)
    monkeypatch.setitem(PARTS, "quotes", breaks)
    monkeypatch.setitem(PARTS, "results", works)
    before, broken, after = [
        line for line in await bench.run(["quotes", "results"], 0.5) if isinstance(line, Measure)
    ]
    assert before.ours == LoadResult(9)
    assert (broken.name, broken.ours) == ("quotes", Failed("OSError: no such server"))
    assert after.ours == LoadResult(0.5)
    assert "2/2 results: a step" in capsys.readouterr().err


def test_progress_in_a_file_is_a_line_for_each_step() -> None:
    written = io.StringIO()
    with bench.ProgressLine(Console(file=written)) as progress:
        progress.show("1/7 quotes")
        progress.show("2/7 [tasks]: Celery")
    assert written.getvalue() == "   0 s  1/7 quotes\n   0 s  2/7 [tasks]: Celery\n"


def test_writing_the_page_keeps_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("# Performance\n\nold\n\n## How it is measured\n- so\n\n## Footprint\n1 MiB\n", "utf-8")
    rates = [Measure("mails", LoadResult(7), "Celery", Failed("OSError"))]
    page.write(rates, [Wait("ten items", [0.2], [0.1], 1)], scale=1, load_before=0.5, page=path)
    written = path.read_text("utf-8")
    assert "| mails | 7 |  | Celery | failed |" in written
    assert "| ten items | 200 | 200 | 200 | 100 | 100 | 100 | < 1 s met |" in written
    assert "a load average of 0.5 before" in written
    assert "old" not in written
    assert written.endswith("\n## How it is measured\n- so\n\n## Footprint\n1 MiB\n")


def test_what_a_part_has_found_by_itself_stands_below_in_place_of_what_it_found_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "performance.md"
    path.write_text("# Performance\n\nof all\n\n## How it is measured\n- so\n", "utf-8")
    for parts, ms in ((["turns"], 100), (["emails", "sockets"], 200), (["turns"], 300)):
        waits = [Wait("ten items", [ms / 1000], [0.1], 1)]
        page.write_parts(parts, [], waits, scale=1, load_before=0.5, page=path)
    written = path.read_text("utf-8")
    assert written.startswith("# Performance\n\nof all\n")
    chapters = [line for line in written.splitlines() if line.startswith("#")]
    assert chapters == [
        "# Performance",
        "### Measured by itself: emails, sockets",
        "### Measured by itself: turns",
        "## How it is measured",
    ]
    assert 'ARGS="--only emails --only sockets --write --scale 1"' in written
    assert [row.split("|")[2] for row in written.splitlines() if "ten items" in row] == [" 200 ", " 300 "]
    assert written.endswith("\n\n## How it is measured\n- so\n")
