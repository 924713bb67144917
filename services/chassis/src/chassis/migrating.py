"""Applies a service's schema changes and ends: `python -m chassis.migrating <package>`.

A step of its own before a roll-out. `POSTGRES_DSN` (or `POSTGRES_DSN_FILE`) is all it needs. A database
that is away ends it with exit code 1, wrong use with 2: whoever started it tries again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

from chassis import logging, migrations
from chassis.postgres import AWAY

log = logging.get(__name__)

_CONNECT_TIMEOUT_S = 10


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Migrate the database of the package that `arguments` names; gives the exit code."""
    logging.configure(service="migrating", level=environ.get("LOG_LEVEL", "INFO"), style="json")
    try:
        (package,) = arguments
        dsn = _dsn(environ)
    except (ValueError, KeyError, OSError):
        sys.stderr.write("Use: POSTGRES_DSN=postgresql://… python -m chassis.migrating <package>\n")
        return 2
    try:
        applied = asyncio.run(migrate(dsn, package))
    except (*AWAY, TimeoutError, asyncpg.PostgresError) as error:
        log.error("not migrated", package=package, reason=str(error) or type(error).__name__)
        return 1
    log.info("migrated", package=package, applied=applied)
    return 0


async def migrate(dsn: str, package: str) -> list[str]:
    """Bring the database at `dsn` up to date for `package`; gives the names of what was applied."""
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_TIMEOUT_S)
    try:
        return await migrations.migrate(connection, package)
    finally:
        await connection.close()


def _dsn(environ: Mapping[str, str]) -> str:
    if environ.get("POSTGRES_DSN_FILE"):
        return Path(environ["POSTGRES_DSN_FILE"]).read_text(encoding="utf-8").strip()
    return environ["POSTGRES_DSN"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
