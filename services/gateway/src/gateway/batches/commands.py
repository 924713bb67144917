"""The commands of batches and tasks, with payloads exactly as their callers wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from contracts import batches as contract
from contracts.items import custom_id_of
from contracts.json_texts import member
from gateway.acceptance.repository import Acceptance
from gateway.batches import uploads
from gateway.batches.inputs import BatchInput, BatchTerms, FollowUpInput, TaskInput, payload_texts
from gateway.http.principal import Principal
from gateway.http.problems import invalid

_RUN_ITEMS = 1000


def require_time(expires_at: datetime | None, *, begins_at: datetime | None = None) -> None:
    """Raise `InvalidInput` for work that expires before it begins: now, or at `begins_at`."""
    if expires_at is None:
        return
    if expires_at <= datetime.now(UTC):
        raise invalid("/expires_at", "expires_at must be in the future, or nothing would run.")
    if begins_at is not None and expires_at <= begins_at:
        raise invalid("/expires_at", "expires_at must be later than run_at or the end of delay_s.")


def of_batch(
    acceptance: Acceptance, batch: BatchInput, principal: Principal, *, document: bytes, name: str
) -> list[Outgoing]:
    """Return a small batch as one message, and a larger one as messages of a thousand items and a seal."""
    if batch.source is not None:
        create = contract.CreateBatch(
            **description(acceptance, batch, principal, document),
            source=contract.Source(**batch.source.model_dump()),
        )
        return [envelope.command(create, message_id=acceptance.id, tenant=acceptance.owner_id)]
    written = member(document, name, orjson.dumps(batch.items))
    texts = list(payload_texts(batch.items, written))
    items = [
        b'{"payload":' + text + b"}"
        if custom_id is None
        else b'{"custom_id":' + orjson.dumps(custom_id) + b',"payload":' + text + b"}"
        for custom_id, text in zip(map(custom_id_of, batch.items), texts, strict=True)
    ]
    owner = acceptance.owner_id
    about = description(acceptance, batch, principal, document)
    if len(items) <= _RUN_ITEMS:
        create = contract.CreateBatch(**about, payloads_at=_places(items, texts))
        whole = b"[" + b",".join(items) + b"]"
        return [with_items(envelope.command(create, message_id=acceptance.id, tenant=owner), whole)]
    runs = [
        uploads.message(
            acceptance.id,
            owner,
            start,
            items[start : start + _RUN_ITEMS],
            payloads_at=_places(items[start : start + _RUN_ITEMS], texts[start : start + _RUN_ITEMS]),
        )
        for start in range(0, len(items), _RUN_ITEMS)
    ]
    return [*runs, envelope.command(contract.SealBatch(**about, total=len(items)), tenant=owner)]


def of_task(
    acceptance: Acceptance, task: TaskInput, principal: Principal, *, document: bytes, payload: bytes
) -> Outgoing:
    """Return the task in `document` as one message, with its payload byte for byte."""
    delayed_until = acceptance.accepted_at + timedelta(seconds=task.delay_s)
    create = contract.CreateBatch(
        batch_id=acceptance.id,
        owner_id=acceptance.owner_id,
        kind="task",
        operation=task.operation,
        accepted_at=acceptance.accepted_at,
        not_before=delayed_until if task.delay_s else task.run_at,
        priority=task.priority,
        scopes=sorted(principal.scopes),
        metadata=task.metadata,
        expires_at=task.expires_at,
        on_finished=follow_up(task.on_finished, document),
        payloads_at=_places([b'{"payload":' + payload + b"}"], [payload]),
    )
    command = envelope.command(create, message_id=acceptance.id, tenant=acceptance.owner_id)
    return with_items(command, b'[{"payload":' + payload + b"}]")


def description(
    acceptance: Acceptance, batch: BatchTerms, principal: Principal, document: bytes
) -> dict[str, Any]:
    """Return the fields of a `CreateBatch` and a `SealBatch` for the batch in `document`."""
    return {
        "batch_id": acceptance.id,
        "owner_id": acceptance.owner_id,
        "operation": batch.operation,
        "accepted_at": acceptance.accepted_at,
        "options": batch.options.to_message(),
        "scopes": sorted(principal.scopes),
        "metadata": batch.metadata,
        "expires_at": batch.expires_at,
        "on_finished": follow_up(batch.on_finished, document),
    }


def follow_up(wanted: FollowUpInput | None, document: bytes) -> contract.FollowUp | None:
    """Return the task that follows, with its payload byte for byte as in the member `on_finished`."""
    if wanted is None:
        return None
    written = member(document, "on_finished", orjson.dumps(wanted.model_dump()))
    payload = member(written, "payload", orjson.dumps(wanted.payload))
    return contract.FollowUp(operation=wanted.operation, payload=payload.decode())


def with_items(command: Outgoing, items: bytes) -> Outgoing:
    """Return a command with `items` added, byte for byte as the caller wrote them."""
    return Outgoing(
        command.exchange,
        command.routing_key,
        command.body[:-1] + b',"items":' + items + b"}",
        command.message_type,
        command.message_id,
        command.headers,
    )


def _places(items: Sequence[bytes], payloads: Sequence[bytes]) -> list[int]:
    """Return the start and the end of each payload in the list of these items, each of which ends with it."""
    places: list[int] = []
    begin = 0
    for item, payload in zip(items, payloads, strict=True):
        end = begin + len(item) - 1
        places += (end - len(payload), end)
        # Behind the brace and the comma.
        begin = end + 2
    return places
