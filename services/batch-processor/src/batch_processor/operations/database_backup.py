"""`database.backup`: requests a backup of the whole installation, which an agent makes."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict

from batch_processor.operation import Context, Operation, RetryPolicy
from contracts.backups import Backup, GetBackup, RequestBackup
from contracts.message import Json
from contracts.scopes import Scope

# The slots, of those that all operations share.
MOST_AT_ONCE = 2
_ASK_S = 10
_ASK_EVERY_S = 2
# The agent gives up after four hours, and may have to wait for a backup by `make backup` first.
_LONGEST_S = 5 * 3600


class BackupPayload(BaseModel):
    """An empty payload: folder, passphrase and number of backups are settings of the operator."""

    model_config = ConfigDict(extra="forbid")


async def run(_: BackupPayload, context: Context) -> Json:
    """Return file, size and times of the backup. Raise the reason why there is none.

    All items of a batch share one backup. An item that runs during another backup gets the result of that.
    """
    backup = await context.ask(RequestBackup(batch_id=context.batch_id), Backup, timeout_s=_ASK_S)
    while backup.file is None:
        await asyncio.sleep(_ASK_EVERY_S)
        backup = await context.ask(GetBackup(id=backup.id), Backup, timeout_s=_ASK_S)
    return backup.model_dump(mode="json", include={"file", "bytes", "is_encrypted", "began_at", "ended_at"})


OPERATION = Operation(
    name="database.backup",
    description="Makes a backup of the whole installation; the result names its file. For administrators.",
    payload=BackupPayload,
    run=run,
    required_scopes=frozenset({Scope.ADMIN}),
    # The first retry is for a broker or agent that was starting, later ones for messages stuck in the broker.
    retry=RetryPolicy(max_attempts=4, first_s=15, factor=4),
    chunk_size=1,
    max_concurrency=MOST_AT_ONCE,
    timeout_s=_LONGEST_S,
)
