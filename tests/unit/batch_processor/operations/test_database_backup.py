"""The operation that asks for a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError

from batch_processor.operations.database_backup import OPERATION, BackupPayload
from contracts.backups import Backup, GetBackup, RequestBackup
from contracts.scopes import Scope
from support.operation_world import OperationWorld
from upkeep import agent

ANOTHER = UUID(int=8)
AT = datetime(2026, 11, 28, 3, 15, tzinfo=UTC)


async def test_the_result_is_the_file_of_the_current_backup_even_if_another_task_asked_for_it(
    world: OperationWorld,
) -> None:
    waiting = Backup(id=ANOTHER, requested_at=AT, began_at=AT)
    done = waiting.model_copy(
        update={"ended_at": AT, "file": "tickwire-x.tar", "bytes": 12, "is_encrypted": False}
    )
    world.replies = [waiting, done]
    assert await OPERATION.run(BackupPayload(), world.context()) == {
        "file": "tickwire-x.tar",
        "bytes": 12,
        "is_encrypted": False,
        "began_at": "2026-11-28T03:15:00Z",
        "ended_at": "2026-11-28T03:15:00Z",
    }
    assert world.asked == [RequestBackup(batch_id=world.context().batch_id), GetBackup(id=ANOTHER)]


def test_the_payload_of_a_backup_is_empty() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        BackupPayload.model_validate({"folder": "/etc"})


def test_a_backup_is_for_administrators_and_takes_few_slots_for_as_long_as_the_agent_may_take() -> None:
    assert OPERATION.required_scopes == {Scope.ADMIN}
    assert OPERATION.max_concurrency == 2
    assert OPERATION.timeout_s > agent.LONGEST_S
