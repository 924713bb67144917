"""Messages about backups that tasks ask for; batch-processor records them, and an agent makes the backups."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from contracts.message import Moment, Reply, Request
from contracts.topology import BATCH_PROCESSOR


class Backup(Reply):
    """A backup that was asked for. It waits for an agent until `began_at`, and is complete with a `file`."""

    id: UUID
    requested_at: Moment
    began_at: Moment | None = None
    ended_at: Moment | None = None
    file: str | None = None
    bytes: int | None = None
    is_encrypted: bool | None = None


class RequestBackup(Request):
    """Request a backup for the batch `batch_id`; while one is in progress, the answer is that one.

    However often a batch asks, it has one backup, until that one fails.
    """

    message_type: ClassVar[str] = "backups.request.v1"
    reply: ClassVar[type[Reply]] = Backup
    service: ClassVar[str] = BATCH_PROCESSOR
    batch_id: UUID


class GetBackup(Request):
    """Ask for the state of a requested backup; a failure comes as an error with the reason."""

    message_type: ClassVar[str] = "backups.get.v1"
    reply: ClassVar[type[Reply]] = Backup
    service: ClassVar[str] = BATCH_PROCESSOR
    id: UUID
