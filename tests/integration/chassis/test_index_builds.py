"""Indexes on tables in use: they are built while rows are written, whatever interrupts the build."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from chassis import migrations
from chassis.errors import DatabaseUnavailable
from contracts.topology import BATCH_PROCESSOR
from support.bench import Bench, running
from support.databases import FreshDatabase
from support.waiting import until

TABLE = "CREATE TABLE notes (id int, owner_id int);"
INDEX = """
DROP INDEX CONCURRENTLY IF EXISTS notes_of_owner;
CREATE INDEX CONCURRENTLY notes_of_owner ON notes (owner_id);
"""
COLUMN = "ALTER TABLE notes ADD COLUMN text text;"
UNLIMITED = """
DO $$ BEGIN
    IF current_setting('statement_timeout') <> '0' THEN RAISE EXCEPTION 'this has a time limit'; END IF;
END $$;
"""
NAMES = ["0001_create_notes", "0002_index_notes", "0003_add_text"]
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('notes_of_owner')"


@dataclass(frozen=True)
class Packages:
    """Makes importable packages that have migrations and nothing else."""

    folder: Path

    def make(self, *statements: str) -> str:
        """Return the name of a package with these migrations, named as `NAMES`."""
        name = f"notes_{uuid4().hex}"
        folder = self.folder / name / "migrations"
        folder.mkdir(parents=True)
        (self.folder / name / "__init__.py").touch()
        for file, sql in zip(NAMES, statements, strict=False):
            (folder / f"{file}.sql").write_text(sql)
        return name


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    monkeypatch.syspath_prepend(tmp_path)
    return Packages(tmp_path)


@pytest.fixture
def package(packages: Packages) -> str:
    """Return the name of a package that builds an index between two other changes."""
    return packages.make(TABLE, INDEX, COLUMN)


@pytest.fixture
def tables(packages: Packages) -> str:
    """Return the name of a package with the first of these changes."""
    return packages.make(TABLE)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def building(dsn: str, package: str, tables: str) -> AsyncIterator[asyncio.Task[list[str]]]:
    """Yield a migration that waits with its index for a writer, who commits at the end of the block."""
    async with connected(dsn) as writer, connected(dsn) as observer:
        await migrations.migrate_at(dsn, tables)
        # The first change of the package is made.
        await observer.execute("UPDATE migrations SET package = $1 WHERE package = $2", package, tables)
        async with writer.transaction():
            await writer.execute("INSERT INTO notes VALUES (1, 1)")
            migrating = asyncio.create_task(migrations.migrate_at(dsn, package))

            async def waits() -> bool:
                return bool(
                    await observer.fetchval(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND query LIKE '%CREATE INDEX%notes_of_owner%' AND wait_event_type = 'Lock'"
                    )
                )

            await until(waits)
            yield migrating


async def test_rows_are_written_while_an_index_is_built(
    fresh_database: FreshDatabase, package: str, tables: str
) -> None:
    dsn = await fresh_database()
    async with building(dsn, package, tables) as migrating, connected(dsn) as other:
        # A lock that excludes writers would let this one wait for the first.
        await other.execute("SET lock_timeout = '5s'; INSERT INTO notes VALUES (2, 2)")
        assert not migrating.done()
    assert NAMES[1:] == [name for name in await migrating if name in NAMES]
    async with connected(dsn) as other:
        assert await other.fetchval(VALID) is True


async def test_an_index_whose_build_was_interrupted_is_built_anew(
    fresh_database: FreshDatabase, package: str, tables: str
) -> None:
    dsn = await fresh_database()
    async with building(dsn, package, tables) as migrating:
        migrating.cancel()
        await asyncio.wait([migrating])
    async with connected(dsn) as other:
        assert await other.fetchval(VALID) is False
        assert NAMES[1:] == [name for name in await migrations.migrate_at(dsn, package) if name in NAMES]
        assert await other.fetchval(VALID) is True
    assert await migrations.migrate_at(dsn, package) == []


async def test_replicas_that_start_while_an_index_is_built_wait_for_it(
    fresh_database: FreshDatabase, package: str, tables: str
) -> None:
    dsn = await fresh_database()
    async with building(dsn, package, tables) as first:
        second = asyncio.create_task(migrations.migrate_at(dsn, package))
        # A release that knows nothing of the index is not held up.
        other = asyncio.wait_for(migrations.migrate_at(dsn, "support.sample_service"), timeout=60)
        assert await other == ["0001_create_effects"]
        done, _ = await asyncio.wait([first, second], timeout=2)
        assert done == set()
    applied = await asyncio.gather(first, second)
    assert sorted(name for names in applied for name in names if name in NAMES) == NAMES[1:]


async def test_a_change_may_take_longer_than_other_statements_of_a_service(
    bench: Bench, packages: Packages
) -> None:
    runtime = await bench.build(BATCH_PROCESSOR, package=packages.make(UNLIMITED))
    async with running(runtime):
        pass


async def test_a_change_that_would_wait_for_a_long_reader_holds_up_nobody(
    fresh_database: FreshDatabase, packages: Packages, tables: str
) -> None:
    """`pg_dump` reads each table until its end: a change that waited would keep all others from the table."""
    dsn, changed = await fresh_database(), packages.make(TABLE, COLUMN)
    async with connected(dsn) as backup, connected(dsn) as other:
        await migrations.migrate_at(dsn, tables)
        await other.execute("UPDATE migrations SET package = $1 WHERE package = $2", changed, tables)
        async with backup.transaction():
            await backup.fetch("SELECT * FROM notes")
            with pytest.raises(DatabaseUnavailable, match="cannot be migrated yet"):
                await migrations.migrate_at(dsn, changed)
            await other.execute("INSERT INTO notes VALUES (1, 1)")
        assert await migrations.migrate_at(dsn, changed) == [NAMES[1]]
