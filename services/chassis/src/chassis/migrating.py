"""Applies a service's schema changes and exits: `python -m chassis.migrating <package>`.

This is a separate step before a roll-out and needs `POSTGRES_DSN` (or `POSTGRES_DSN_FILE`) only. The exit
code is 1 when the database cannot be reached or changed for longer than `--wait` seconds, 2 for wrong
arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Mapping, Sequence

import asyncpg

from chassis import logging, migrations, queries, redaction, settings
from chassis.database_outages import AWAY
from chassis.errors import DatabaseUnavailable

log = logging.get(__name__)

_PAUSE_S = 1


def main(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Migrate the database of the package that `arguments` name; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m chassis.migrating",
        description="Applies the schema changes of a service.",
        epilog="POSTGRES_DSN (or POSTGRES_DSN_FILE) is the address of its database.",
    )
    parser.add_argument("package", help="gateway, stock_data, emailer or batch_processor")
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait at most this many seconds for a database that cannot be reached or changed (0)",
    )
    options = parser.parse_args(arguments)
    logging.configure(service="migrating", level=environ.get("LOG_LEVEL", "INFO"), style="json")
    try:
        dsn = settings.read(environ, "POSTGRES_DSN")
    except OSError as error:
        parser.error(f"POSTGRES_DSN_FILE: {error}")
    if dsn is None:
        parser.error("POSTGRES_DSN or POSTGRES_DSN_FILE must be set")
    queries.load("chassis")
    try:
        applied = asyncio.run(migrate(dsn, options.package, wait_s=options.wait))
    except (DatabaseUnavailable, *AWAY, TimeoutError, asyncpg.PostgresError) as error:
        log.error("migration failed", package=options.package, reason=redaction.safe_message(error))
        return 1
    log.info("database migrated", package=options.package, applied=applied)
    return 0


async def migrate(dsn: str, package: str, *, wait_s: float = 0) -> list[str]:
    """Bring the database at `dsn` up to date for `package`; return the names of the migrations applied."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return await migrations.migrate_at(dsn, package)
        # A role or a database that does not exist yet is being created.
        except (
            DatabaseUnavailable,
            *AWAY,
            asyncpg.InvalidCatalogNameError,
            asyncpg.InvalidPasswordError,
        ) as error:
            if time.monotonic() > deadline:
                raise
            log.warning("waiting for the database", reason=redaction.safe_message(error))
            await asyncio.sleep(_PAUSE_S)


if __name__ == "__main__":
    raise SystemExit(main(None, os.environ))
