"""Answers to the requests of `database.backup`; an agent outside the services makes the backups."""

from __future__ import annotations

from batch_processor.backups import backup_repository
from batch_processor.errors import BackupFailed, BackupNotFound, NoBackupAgent
from chassis import logging
from chassis.deadlines import Deadline
from chassis.postgres import Postgres, Row
from contracts.backups import Backup, GetBackup, RequestBackup

log = logging.get(__name__)

# An agent takes a request within seconds.
PATIENCE_S = 60
_ABANDONED = "The backup agent ended before the backup was complete; its output says why."


class BackupAnswers:
    """Records requests for backups, one at a time, and reports their outcomes."""

    def __init__(self, postgres: Postgres, *, patience_s: float = PATIENCE_S) -> None:
        self._postgres = postgres
        self._patience_s = patience_s

    async def request(self, wanted: RequestBackup, _: Deadline) -> Backup:
        """Return the backup of the batch, if it has not failed; else the one in progress; else a new one."""
        async with self._postgres.transaction() as connection:
            await backup_repository.lock(connection)
            await backup_repository.end_lost(connection, patience_s=self._patience_s, abandoned=_ABANDONED)
            found = await backup_repository.find_wanted(connection, wanted.batch_id)
            if found is None:
                found = await backup_repository.add(connection, wanted.batch_id)
                log.info("backup requested", batch_id=str(wanted.batch_id))
        return self._backup(found)

    async def get(self, wanted: GetBackup, _: Deadline) -> Backup:
        """Return a backup. Raise `BackupFailed` or `NoBackupAgent` when there will be none."""
        async with self._postgres.transaction() as connection:
            await backup_repository.end_lost(connection, patience_s=self._patience_s, abandoned=_ABANDONED)
            found = await backup_repository.find(connection, wanted.id)
        return self._backup(found)

    def _backup(self, found: Row | None) -> Backup:
        if found is None:
            raise BackupNotFound("Nobody has asked for this backup within the last seven days.")
        if found["error"] is not None:
            raise BackupFailed(found["error"])
        if found["ended_at"] is not None and found["file"] is None:
            raise NoBackupAgent(
                f"No backup agent took the request within {self._patience_s:g} s. `make run` has one of its "
                "own; for containers, start one on their host: make backup-agent. Where an operator runs "
                "PostgreSQL in the cluster, that operator makes the backups. See docs/guides/backup.md."
            )
        return Backup(**found)
