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


# The last migrations from before indexes were built while rows are written.
_LAST_THAT_LOCKS = {"batch_processor": 18, "chassis": 5, "emailer": 18, "gateway": 26, "stock_data": 7}
_CONCURRENT = re.compile(
    r"(DROP INDEX CONCURRENTLY IF EXISTS (\w+); CREATE (UNIQUE )?INDEX CONCURRENTLY \2 ON [^;]+; ?)+"
)


def bare(sql: str) -> str:
    """Return `sql` without comments, with single spaces."""
    return " ".join(re.sub(r"--[^\n]*", "", sql).split())


def locked(sql: str) -> set[str]:
    """Return the tables that `sql` builds an index on while nobody may write to them."""
    found = set(
        re.findall(r"\bCREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)(?:IF NOT EXISTS )?\w+ ON (\w+)", bare(sql))
    )
    return found - set(re.findall(r"\bCREATE TABLE (\w+)", bare(sql)))


def breaks(sql: str) -> list[str]:
    """Return why the release before would not live with `sql`."""
    return [why for why, pattern in _BREAKS.items() if re.search(pattern, bare(sql), re.IGNORECASE)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[1].name}-{file.stem}")
def test_a_migration_only_adds(file: Path) -> None:
    assert breaks(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[1].name}-{file.stem}")
def test_an_index_on_a_table_in_use_is_built_concurrently(file: Path) -> None:
    sql = file.read_text(encoding="utf-8")
    if "CONCURRENTLY" in sql:
        # Each statement runs by itself, and the file again from its beginning when it was interrupted.
        assert _CONCURRENT.fullmatch(bare(sql))
    elif int(file.name[:4]) > _LAST_THAT_LOCKS[file.parents[1].name]:
        assert locked(sql) == set()


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


def test_an_index_that_would_lock_its_table_is_found() -> None:
    assert locked("CREATE INDEX notes_of_owner ON notes (owner_id);") == {"notes"}
    assert locked("CREATE TABLE notes (id int);\nCREATE UNIQUE INDEX a ON notes (id);") == set()
    assert locked("CREATE INDEX CONCURRENTLY a ON notes (id);") == set()
