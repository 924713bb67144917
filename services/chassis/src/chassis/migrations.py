"""Ordered schema changes: `migrations/NNNN_verb_noun.sql` of a package, each applied once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from chassis import logging, queries
from chassis.postgres import Connection

log = logging.get(__name__)

# Any number that all replicas share: one migrates, the others wait and then find nothing to do.
_LOCK = 7_214_803_551

_SQL = queries.load("chassis")


@dataclass(frozen=True)
class Migration:
    """One file of schema changes."""

    package: str
    name: str
    sql: str


def collect(package: str, folder: str = "migrations") -> list[Migration]:
    """Return the migrations of `package` in the order of their numbers."""
    files = sorted(resources.files(package).joinpath(folder).iterdir(), key=lambda file: file.name)
    return [
        Migration(package, file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".sql")
    ]


async def migrate(connection: Connection, package: str) -> list[str]:
    """Bring the database up to date for the chassis and `package`; return the migrations applied."""
    async with connection.transaction():
        await connection.execute(_SQL["lock_ledger"], _LOCK)
        await connection.execute(_SQL["create_ledger"])
        rows = await connection.fetch(_SQL["list_applied"])
        done = {(row["package"], row["name"]) for row in rows}
        wanted = collect("chassis", "schema") + collect(package)
        missing = [m for m in wanted if (m.package, m.name) not in done]
        for migration in missing:
            await connection.execute(migration.sql)
            await connection.execute(_SQL["note_applied"], migration.package, migration.name)
            log.info("migration applied", package=migration.package, migration=migration.name)
    return [migration.name for migration in missing]
