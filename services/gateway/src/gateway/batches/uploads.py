"""NDJSON uploads: their bytes as they arrive, and the messages made of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import orjson

from chassis import threads
from chassis.broker.envelope import Outgoing, new_id, stamp
from contracts.batches import AppendItems
from contracts.topology import COMMANDS
from gateway.batches.cutting import Cutter, Run
from gateway.batches.inflating import inflated
from gateway.batches.upload_turns import UploadTurns
from gateway.errors import UploadStalled
from gateway.http.calls import Upload

# The bytes that are read before other tasks may run: some 200 short lines, a millisecond. On a busy machine
# it is several, and a request waits for a few of such turns.
_TURN_BYTES = 8 * 1024


def message(
    batch_id: UUID, owner_id: str, offset: int, items: Sequence[bytes], **more: Sequence[int] | None
) -> Outgoing:
    """Return an `AppendItems` command with `items`, which are JSON already; `more` are further fields."""
    about = {"batch_id": str(batch_id), "owner_id": owner_id, "offset": offset}
    head = orjson.dumps(about | {name: value for name, value in more.items() if value is not None})
    return Outgoing(
        exchange=COMMANDS,
        routing_key=AppendItems.queue,
        body=head[:-1] + b',"items":[' + b",".join(items) + b"]}",
        message_type=AppendItems.message_type,
        message_id=str(new_id()),
        headers=stamp(tenant=owner_id),
    )


def append(batch_id: UUID, owner_id: str, run: Run) -> Outgoing:
    """Return the command that appends `run` to a batch."""
    return message(batch_id, owner_id, run.offset, run.items, lines=run.lines, payloads_at=run.places)


def unpacked(source: UploadParts, body: Upload) -> AsyncIterator[bytes]:
    """Return the unpacked bytes of an upload, whether it was compressed or not."""
    return inflated(aiter(source), limit=body.limit) if body.is_gzip else aiter(source)


@dataclass
class UploadParts:
    """The parts of an upload as they come from the network, each within `patience_s` seconds.

    `has_read` is called with the number of bytes handled, which lets more arrive; `digest` is updated with
    all bytes. Raise `UploadStalled` when no part arrives in time.
    """

    parts: AsyncIterator[bytes]
    has_read: Callable[[int], None]
    digest: hashlib._Hash
    patience_s: float = 60

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self.patience_s):
                    part = await anext(self.parts, None)
            except TimeoutError:
                raise UploadStalled(
                    f"No data arrived for {self.patience_s:.0f} s; send the upload again."
                ) from None
            if part is None:
                return
            self.digest.update(part)
            yield part
            self.has_read(len(part))


async def cut(
    source: AsyncIterable[bytes], cutter: Cutter, turns: UploadTurns, *, owner_id: str
) -> AsyncIterator[Run]:
    """Yield the runs of an upload of the owner as they become complete.

    Items left over at the end remain in `cutter`. All uploads share `turns`.
    """
    async for part in source:
        for start in range(0, len(part), _TURN_BYTES):
            # One turn per iteration of the event loop: many fast clients delay other requests no more than
            # one does.
            piece = part[start : start + _TURN_BYTES]
            # To read one long line can take as long as to read a thousand short ones.
            is_slow = len(cutter.rest) > _TURN_BYTES and b"\n" in piece
            runs = await threads.run(partial(cutter.feed, piece)) if is_slow else []
            async with turns.turn(owner_id):
                runs = runs if is_slow else cutter.feed(piece)
                await asyncio.sleep(0)
            for run in runs:
                yield run


async def finish(cutter: Cutter) -> list[Run]:
    """Return the last run of an upload, as `Cutter.finish` does; a long last line is read in a thread."""
    return await threads.run(cutter.finish) if len(cutter.rest) > _TURN_BYTES else cutter.finish()
