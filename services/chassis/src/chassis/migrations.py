"""Ordered schema changes: `migrations/NNNN_verb_noun.sql` of a package, each applied once.

Those that are missing are applied together in one transaction. A file whose statements say CONCURRENTLY runs
outside of it, statement by statement, as the server wants it: indexes are built while rows are written.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile

import asyncpg

from chassis import logging, queries, redaction
from chassis.database_outages import UNWRITABLE
from chassis.errors import DatabaseUnavailable
from chassis.postgres import FOR_LOST_CLIENTS, Connection

log = logging.get(__name__)

# Any number that all replicas share: one migrates, the others wait and then find nothing to do.
_LOCK = 7_214_803_551
# Another one for concurrent builds: whoever waits for the first does so in a transaction, and a build waits
# for every transaction that began before it.
_BUILD_LOCK = 7_214_803_554
_PAUSE_S = 0.5
_CONNECT_TIMEOUT_S = 10

_SQL = queries.of("chassis")


@dataclass(frozen=True)
class Migration:
    """One file of schema changes."""

    package: str
    name: str
    sql: str

    @property
    def is_concurrent(self) -> bool:
        """Whether its statements run one by one, outside of a transaction."""
        return " CONCURRENTLY " in self.sql

    @property
    def statements(self) -> list[str]:
        """The statements of a concurrent migration, which have no semicolon inside."""
        return [statement for statement in self.sql.split(";") if statement.strip()]


def collect(package: str, folder: str = "migrations") -> list[Migration]:
    """Return the migrations of `package` in the order of their numbers."""
    files = sorted(resources.files(package).joinpath(folder).iterdir(), key=lambda file: file.name)
    return [
        Migration(package, file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".sql")
    ]


async def migrate_at(dsn: str, package: str) -> list[str]:
    """Migrate the database at `dsn` as `migrate` does, over a connection of its own.

    Its statements have no time limit: to build an index of many rows may take minutes. Raise
    `DatabaseUnavailable`, with nothing half applied, while the server accepts no writes, another process
    migrates, or a long transaction, such as a backup, uses a table that is to be changed: whoever waited
    for it would hold up all that is done with the table.
    """
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S, server_settings=FOR_LOST_CLIENTS)
    try:
        return await migrate(connection, package)
    except (asyncpg.LockNotAvailableError, *UNWRITABLE) as error:
        raise DatabaseUnavailable(
            f"The database cannot be migrated yet: {redaction.safe_message(error)}.", retry_after_s=1
        ) from error
    finally:
        await connection.close()


async def migrate(connection: Connection, package: str) -> list[str]:
    """Bring the database up to date for the chassis and `package`; return the migrations applied.

    After an error, close the connection: it may hold a lock.
    """
    applied: list[str] = []
    while True:
        together, concurrent = await _apply(connection, package)
        applied += together
        if concurrent is None:
            return applied
        if await _build(connection, concurrent):
            applied.append(concurrent.name)


async def _apply(connection: Connection, package: str) -> tuple[list[str], Migration | None]:
    """Apply what is missing up to the first concurrent migration; return the names, and that migration."""
    async with connection.transaction():
        await connection.execute(_SQL["limit_waits_for_locks"])
        await connection.execute(_SQL["lock_ledger"], _LOCK)
        await connection.execute(_SQL["create_ledger"])
        rows = await connection.fetch(_SQL["list_applied"])
        done = {(row["package"], row["name"]) for row in rows}
        wanted = collect("chassis", "schema") + collect(package)
        missing = [m for m in wanted if (m.package, m.name) not in done]
        together = list(takewhile(lambda migration: not migration.is_concurrent, missing))
        for migration in together:
            await connection.execute(migration.sql)
            await _note(connection, migration)
    names = [migration.name for migration in together]
    return names, missing[len(together)] if len(together) < len(missing) else None


async def _build(connection: Connection, migration: Migration) -> bool:
    """Run a concurrent migration from its beginning; return whether it was still to be done.

    One that was interrupted has left an index that is not valid, which its first statement drops.
    """
    while not await connection.fetchval(_SQL["try_lock_builds"], _BUILD_LOCK):
        await asyncio.sleep(_PAUSE_S)
    is_missing = not await connection.fetchval(_SQL["is_applied"], migration.package, migration.name)
    if is_missing:
        for statement in migration.statements:
            await connection.execute(statement)
        await _note(connection, migration)
    await connection.execute(_SQL["unlock_builds"], _BUILD_LOCK)
    return is_missing


async def _note(connection: Connection, migration: Migration) -> None:
    await connection.execute(_SQL["note_applied"], migration.package, migration.name)
    log.info("migration applied", package=migration.package, migration=migration.name)
