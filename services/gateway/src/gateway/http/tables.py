"""Rows as CSV (RFC 4180), safe to open in a spreadsheet and to read back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

# Cells that a spreadsheet evaluates as a formula, the last four in some languages; a negative number is not
# one. Apostrophes before it are part of the cell, so that reading it back removes the one that was added.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def guarded(cell: str) -> str:
    """Return `cell`, with a leading apostrophe if a spreadsheet would evaluate it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def unguarded(cell: str) -> str:
    """Return `cell` as it was before `guarded`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def written(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows as the lines of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
