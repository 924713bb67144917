"""Migrations leave the previous release working: they run first, while its pods still run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_SERVICES = Path(__file__).resolve().parents[2] / "services"
FILES = sorted(
    (*_SERVICES.glob("*/src/*/migrations/*.sql"), *_SERVICES.glob("chassis/src/chassis/schema/*.sql"))
)

_WITHOUT_DEFAULT = r"(?=[^,;]*\bNOT\s+NULL\b)(?![^,;]*\bDEFAULT\b)"
# What the code of the release before may still use, or does not fill in.
_BREAKS = {
    "takes something away": r"\bDROP\s+(TABLE|COLUMN|TYPE|VIEW|FUNCTION|SCHEMA)\b",
    "renames something": r"\bRENAME\b",
    "changes a type": r"\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b",
    "demands what was optional": r"\bSET\s+NOT\s+NULL\b",
    "adds a column that old code does not fill in": rf"\bADD\s+COLUMN\b{_WITHOUT_DEFAULT}",
}


def breaks(sql: str) -> list[str]:
    """Return why the release before would not live with `sql`."""
    bare = re.sub(r"--[^\n]*", "", sql)
    return [why for why, pattern in _BREAKS.items() if re.search(pattern, bare, re.IGNORECASE)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[1].name}-{file.stem}")
def test_a_migration_only_adds(file: Path) -> None:
    assert breaks(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.parent.name
)
def test_migrations_are_numbered_without_a_gap(folder: Path) -> None:
    names = [file.name for file in FILES if file.parent == folder]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z]+(_[a-z]+)+\.sql", name) for name in names)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("ALTER TABLE emails DROP COLUMN subject;", "takes something away"),
        ("alter table emails rename to mails;", "renames something"),
        ("ALTER TABLE emails ALTER COLUMN id TYPE text;", "changes a type"),
        ("ALTER TABLE emails ALTER COLUMN id SET NOT NULL;", "demands what was optional"),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL;", "adds a column that old code does not fill in"),
    ],
)
def test_a_migration_that_breaks_old_code_is_found(sql: str, why: str) -> None:
    assert breaks(sql) == [why]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 0;",
        "ALTER TABLE a ADD COLUMN b int;",
        "-- DROP TABLE a\n",
    ],
)
def test_a_migration_that_adds_is_fine(sql: str) -> None:
    assert breaks(sql) == []
