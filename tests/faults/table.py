"""The table of results: on the terminal, and between the markers of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faults.scenario import Row

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"

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
    """The rows as a Markdown table."""
    lines = [_line(_HEADS), _line(["---", *["---:"] * 4, "---", "---:"])]
    return "\n".join([*lines, *(_line(_cells(row)) for row in rows)]) + "\n"


def insert(text: str, table: str) -> str:
    """`text` with `table` between the markers. Raises `ValueError` when they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def write(rows: Sequence[Row], *, heading: str) -> None:
    """Put the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(insert(text, f"{heading}\n\n{render(rows)}"), encoding="utf-8")


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
