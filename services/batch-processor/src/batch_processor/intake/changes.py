"""Changes that messages make: the items in them, and the transition of their batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import orjson

from batch_processor.batches import life_cycle
from batch_processor.batches.life_cycle import Description, StoredBatch
from batch_processor.items.binary_copy import ItemRun
from contracts import batch_options
from contracts.batch_options import Priority
from contracts.batches import CreateBatch, Item, SealBatch
from contracts.json_texts import names_at, payloads, payloads_at

# The priorities of batches on the scale of those of tasks, which are 0 to 9.
_PRIORITIES: Mapping[Priority, int] = {"low": 2, "normal": 5, "high": 8}
# The items of a run: as many as an upload has in one.
_RUN = 500


class Transition(Protocol):
    """A transition in the life cycle of a batch."""

    def __call__(self, batch: StoredBatch, /, *, now: datetime) -> StoredBatch:
        """Return the batch after the transition."""


@dataclass(frozen=True, slots=True)
class BatchChange:
    """The effect of one message: items to store, as written in `body`, and a transition of the batch.

    Items that have their `payloads_at` in the body are not in `items`.
    """

    batch_id: UUID
    owner_id: str
    step: Transition | None = None
    items: Sequence[Item] = ()
    body: bytes = b""
    offset: int = 0
    lines: Sequence[int] | None = None
    payloads_at: Sequence[int] | None = None

    @property
    def size(self) -> int:
        """The number of items."""
        return len(self.items) if self.payloads_at is None else len(self.payloads_at) // 2


def opening(message: CreateBatch | SealBatch, body: bytes = b"") -> BatchChange:
    """Return the change of a message that describes its batch, and may set its number of items."""
    if isinstance(message, SealBatch):
        step = partial(_described, description=describing(message), total=message.total)
        return BatchChange(message.batch_id, message.owner_id, step)
    step = partial(_described, description=describing(message), total=message.size)
    return BatchChange(
        message.batch_id,
        message.owner_id,
        step,
        message.items or (),
        body,
        payloads_at=message.payloads_at if message.items is None else None,
    )


def describing(message: CreateBatch | SealBatch) -> Description:
    """Return the description of a batch in `message`."""
    options = batch_options.read(message.options)
    creation = message if isinstance(message, CreateBatch) else None
    source = None if creation is None else creation.source
    return Description(
        kind=message.kind,
        operation=message.operation,
        accepted_at=message.accepted_at,
        not_before=None if creation is None else creation.not_before,
        priority=creation.priority if creation and message.kind == "task" else _PRIORITIES[options.priority],
        options=orjson.dumps(options.to_message()).decode(),
        scopes=None if message.scopes is None else tuple(message.scopes),
        metadata=orjson.dumps(message.metadata).decode(),
        expires_at=message.expires_at,
        on_finished=None if message.on_finished is None else message.on_finished.model_dump_json(),
        source=None if source is None else source.model_dump_json(),
    )


def _described(
    batch: StoredBatch, *, now: datetime, description: Description, total: int | None
) -> StoredBatch:
    known = life_cycle.describe(batch, description, now=now)
    return known if total is None else life_cycle.seal(known, total, now=now)


def runs_of(change: BatchChange) -> list[ItemRun]:
    """Return the items of `change` as they are stored, in runs that are written at once."""
    names: Sequence[str | None] | None
    # As the caller has written it: `1.10` must not come back as `1.1`.
    if change.payloads_at is not None:
        names, texts = names_at(change.body, change.payloads_at), payloads_at(change.body, change.payloads_at)
    else:
        names = [item.custom_id for item in change.items]
        compact = [_compact(item.payload) for item in change.items]
        texts = payloads(change.body, compact) if change.body else compact
    # PostgreSQL's text cannot hold a NUL.
    names = names and [name and name.replace("\x00", "\ufffd") for name in names]
    runs = []
    for start in range(0, len(texts), _RUN):
        of_run = slice(start, start + _RUN)
        some_names, lines = names and names[of_run], change.lines and change.lines[of_run]
        runs.append(ItemRun(change.batch_id, change.offset + start, some_names, texts[of_run], lines))
    return runs


def _compact(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits.
        return json.dumps(value).encode()
