"""The lines of an import of suppressions: one JSON document per line, or a table with a header line."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chassis.errors import InvalidInput, MalformedInput, PayloadTooLarge
from chassis.problems import field_errors
from chassis.validation import errors_in
from contracts import addresses
from contracts.addresses import MOST_FOREIGN_DOMAINS
from contracts.message import FieldError
from contracts.suppressions import SuppressionEntry
from gateway.http import strict_json, tables
from gateway.http.calls import RawBody
from gateway.http.problems import invalid
from gateway.http.replies import CSV
from gateway.suppressions.inputs import LINE_COLUMNS, MOST_ERRORS, MOST_LINES, SuppressionLine

_LINE: TypeAdapter[SuppressionLine] = TypeAdapter(SuppressionLine)
# Longer than any valid cell.
_LONGEST_CELL = 8192


@dataclass(slots=True)
class ReadLines:
    """The lines of an import: the valid ones, the number of expired and of invalid ones, and the errors."""

    entries: list[SuppressionEntry] = field(default_factory=list)
    skipped: int = 0
    refused: int = 0
    errors: list[FieldError] = field(default_factory=list)

    def refuse(self, number: int, errors: list[FieldError]) -> None:
        """Record that the line with this number, counted from 1, is invalid."""
        self.refused += 1
        for error in errors[: MOST_ERRORS - len(self.errors)]:
            self.errors.append(FieldError(pointer=f"/{number}{error.pointer}", detail=error.detail))


def read(body: RawBody) -> ReadLines:
    """Return the lines of an import. Raise `InvalidInput` or `PayloadTooLarge` if all of it is refused."""
    found = ReadLines()
    foreign: set[str] = set()
    now = datetime.now(UTC)
    lines = _cells(body.content) if body.media_type == CSV else _documents(body.content)
    for count, (number, line) in enumerate(lines, start=1):
        if count > MOST_LINES:
            raise PayloadTooLarge(f"An import may have at most {MOST_LINES} lines; split it.")
        if isinstance(line, FieldError):
            found.refuse(number, [line])
            continue
        foreign |= addresses.foreign_domains([line.get("address")] if isinstance(line, dict) else [])
        if len(foreign) > MOST_FOREIGN_DOMAINS:
            raise PayloadTooLarge(
                f"An import may have {MOST_FOREIGN_DOMAINS} different domains beyond ASCII; split it."
            )
        try:
            entry = _LINE.validate_python(line).entry()
        except ValidationError as error:
            found.refuse(number, field_errors(errors_in(error)))
            continue
        if entry.expires_at is not None and entry.expires_at <= now:
            found.skipped += 1
        else:
            found.entries.append(entry)
    return found


def _documents(content: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, strict_json.load(line)
        except (MalformedInput, InvalidInput) as error:
            yield number, FieldError(pointer="", detail=error.detail)


def _cells(content: bytes) -> Iterator[tuple[int, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise invalid("", "A table must be in UTF-8.") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if head is None:
                head = _head(row)
                continue
            yield rows.line_num, _row(head, row)
    except csv.Error as error:
        raise invalid(f"/{rows.line_num}", f"The table cannot be read: {error}.") from None


def _head(row: list[str]) -> list[str]:
    head = [cell.strip().lower() for cell in row]
    unknown = [name[:50] for name in head if name not in LINE_COLUMNS]
    if unknown or "address" not in head or len(set(head)) < len(head):
        raise invalid(
            "/1",
            "The first line must name the columns, each once: address, and any of "
            f"{', '.join(sorted(LINE_COLUMNS - {'address'}))}.",
        )
    return head


def _row(head: list[str], row: list[str]) -> dict[str, str] | FieldError:
    if len(row) != len(head):
        return FieldError(pointer="", detail=f"must have {len(head)} cells like the first line")
    if any(len(cell) > _LONGEST_CELL or "\0" in cell for cell in row):
        detail = f"must have cells of at most {_LONGEST_CELL} characters, without U+0000"
        return FieldError(pointer="", detail=detail)
    # An empty cell stands for an absent field.
    return {name: tables.unguarded(cell) for name, cell in zip(head, row, strict=True) if cell}
