"""The table of results: on the terminal, and between the markers of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faults.neighbours import ERRANDS, GuestRow
from faults.scenario import Row
from native.services import NAMES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"
GUESTS_BEGIN = "<!-- guests: begin -->"
GUESTS_END = "<!-- guests: end -->"
_MIB = 1 << 20

_HEADS = (
    "what happens",
    "accepted",
    "lost",
    "duplicate effects",
    "recovery",
    "what the API answered meanwhile",
    "slowest answer",
)


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [_line(_HEADS), _line(["---", *["---:"] * 4, "---", "---:"])]
    return "\n".join([*lines, *(_line(_cells(row)) for row in rows)]) + "\n"


_GUEST_HEADS = (
    "guest",
    "kind",
    "sends",
    "p99 of requests",
    "lines lost",
    *(f"{errand} done" for errand in ERRANDS),
    *(f"{name}: memory, stall" for name in NAMES),
)


def render_guests(rows: Sequence[GuestRow]) -> str:
    """Return the results of the guests as a Markdown table."""
    lines = [_line(_GUEST_HEADS), _line(["---"] * 3 + ["---:"] * (len(_GUEST_HEADS) - 3))]
    return "\n".join([*lines, *(_line(_cells_of_guest(row)) for row in rows)]) + "\n"


def insert(text: str, table: str, *, begin: str = BEGIN, end: str = END) -> str:
    """Return `text` with `table` between the markers. Raise `ValueError` when they are missing."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{table}{end}{after}"


def write(rows: Sequence[Row], *, heading: str) -> None:
    """Put the table of the scenarios into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(insert(text, f"{heading}\n\n{render(rows)}"), encoding="utf-8")


def write_guests(rows: Sequence[GuestRow], *, heading: str) -> None:
    """Put the table of the guests into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    written = insert(text, f"{heading}\n\n{render_guests(rows)}", begin=GUESTS_BEGIN, end=GUESTS_END)
    DOCUMENT.write_text(written, encoding="utf-8")


def _cells_of_guest(row: GuestRow) -> list[str]:
    diary = row.diary
    certain = [one.text for one in row.complaints if one.is_certain]
    return [
        row.guest.name,
        f"**{row.guest.kind}**: {'; '.join(certain)}" if certain else row.guest.kind,
        f"{row.guest.sends} ({row.sent})" if row.sent != row.guest.sends else row.sent,
        f"{diary.p99_s * 1000:.0f} ms of {len(diary.latencies_s) + len(diary.arrivals_s)}",
        f"{len(diary.lost)} of {len(diary.said)}",
        *(f"{diary.slowest_s(errand):.1f} s" for errand in ERRANDS),
        *(f"{seen.peak_bytes // _MIB} MiB, {seen.stall_s:.2f} s" for seen in row.vitals.values()),
    ]


def _cells(row: Row) -> list[str]:
    balance = row.balance
    duplicates = str(balance.duplicates)
    if balance.duplicates:
        duplicates += f" ({balance.explained} explained)"
    return [
        row.scenario.title,
        str(balance.accepted),
        str(balance.lost) if row.passed else f"**{balance.lost}**, {len(row.complaints)} complaints",
        duplicates,
        f"{row.recovery_s:.1f} s",
        row.answers.summary(),
        f"{row.answers.slowest_s:.2f} s",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
