"""The age of the last backup is measured from what `make backup` records."""

from __future__ import annotations

import asyncpg

from chassis import metrics
from chassis.postgres import Postgres
from gateway.administration.backups import BackupWatch
from support import measured
from support.gateway_stack import House


async def test_the_newest_complete_backup_is_the_one_that_is_measured(shared_house: House) -> None:
    dsn = await shared_house.database()
    connection = await asyncpg.connect(dsn)
    postgres = Postgres(dsn)
    await postgres.open()
    watch = BackupWatch(postgres)
    found = []
    # As `upkeep.backups` records them.
    for day in (0, 27, 28, 26):
        if day:
            began = f"2026-11-{day}T03:15:00+00:00"
            await connection.execute(f"INSERT INTO backups (started_at, bytes) VALUES ('{began}', 1)")
        await watch.look()
        found.append(measured.value_of(metrics.LAST_BACKUP))
    await postgres.close()
    await connection.close()
    assert found == [0, 1795749300, 1795835700, 1795835700]
