"""The task that follows the end of a batch: a command, sent as the end is stored, with the same rights.

What its owner has lost of these when it is stored is taken from it (`batch_processor.rights`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

from batch_processor.batches.life_cycle import StoredBatch
from chassis.broker.envelope import Outgoing, command
from contracts.batches import CreateBatch, FollowUp

_FOLLOWING = UUID("0b3f6d1e-5f0a-4c84-9a52-9e0d5a6f7c21")
_BEGIN = b'{"payload":'


def follow_up(batch: StoredBatch, wanted: FollowUp) -> Outgoing:
    """Return the command that creates the task; its id is the same for the same end of the batch."""
    ended_at = batch.finished_at or datetime.now(UTC)
    # A task that is made again under its unique key has the same id and the same revisions.
    id_ = _ordered(uuid5(_FOLLOWING, f"{batch.id}:{batch.accepted_at}:{batch.revision}"), ended_at)
    payload = wanted.payload.encode()
    create = CreateBatch(
        batch_id=id_,
        owner_id=batch.owner_id,
        kind="task",
        operation=wanted.operation,
        accepted_at=ended_at,
        priority=batch.priority,
        scopes=None if batch.scopes is None else list(batch.scopes),
        # Rights that the owner loses while this is on its way are compared with this time.
        scoped_at=batch.scoped_at or batch.accepted_at,
        metadata={"finished_id": str(batch.id), "finished_status": batch.status},
        payloads_at=[len(_BEGIN), len(_BEGIN) + len(payload)],
    )
    outgoing = command(create, message_id=id_, tenant=batch.owner_id)
    # The payload as the caller has written it.
    item = b"[" + _BEGIN + payload + b"}]"
    return replace(outgoing, body=outgoing.body[:-1] + b',"items":' + item + b"}")


def _ordered(name: UUID, moment: datetime) -> UUID:
    """Return `name` as a UUIDv7 of `moment`: lists are in the order of ids, the newest first."""
    milliseconds = int(moment.timestamp() * 1000)
    low = name.int & (1 << 76) - 1
    return UUID(int=milliseconds << 80 | 7 << 76 | low)
