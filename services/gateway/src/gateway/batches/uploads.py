"""NDJSON uploads: lines are checked and cut into messages while they arrive; nothing is held as a whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from chassis.broker.envelope import Outgoing, new_id, stamp
from chassis.errors import InvalidInput, PayloadTooLarge
from contracts.batches import AppendItems
from contracts.items import MOST_ITEMS, MOST_LINE_BYTES, is_wrapped, require_custom_id
from contracts.message import FieldError
from contracts.topology import COMMANDS
from gateway.batches.custom_ids import CustomIds
from gateway.errors import UploadStalled
from gateway.http import strict_json as documents

CHUNK_ITEMS = 500
_CHUNK_BYTES = 512 * 1024
# What is read before others have their turn: some 500 short lines, a few milliseconds.
_TURN_BYTES = 16 * 1024


@dataclass
class Cutter:
    """Turns the bytes of an upload into runs of items.

    `feed` takes what arrives and gives the runs that are complete; `finish` gives the last one. Raises
    `InvalidInput` with the line's number for a line that is not an item, or repeats a custom_id, and
    `Overloaded` when the uploads under way have more ids than can be remembered.
    """

    custom_ids: CustomIds
    total: int = 0
    _rest: bytes = b""
    _lines: list[bytes] = field(default_factory=list)
    _size: int = 0
    _line_number: int = 0

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take more bytes; gives runs of at most 500 items, each item in JSON."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LINE_BYTES:
            raise PayloadTooLarge(f"Line {self._line_number + 1} is longer than {MOST_LINE_BYTES} bytes.")
        runs = []
        for line in lines:
            run = self._take(line)
            if run:
                runs.append(run)
        return runs

    def finish(self) -> list[bytes]:
        """Return the last run, maybe empty. Raise `InvalidInput` when the upload held no item at all."""
        run = self._take(self._rest) or []
        self._rest = b""
        if not self.total:
            raise InvalidInput("The upload has no items: send one JSON object a line.")
        return run + self._cut()

    def _take(self, line: bytes) -> list[bytes] | None:
        self._line_number += 1
        line = line.strip()
        if not line:
            return None
        self._lines.append(self._item(line))
        self._size += len(line)
        self.total += 1
        if self.total > MOST_ITEMS:
            raise PayloadTooLarge(f"A batch has at most {MOST_ITEMS} items.")
        return self._cut() if len(self._lines) >= CHUNK_ITEMS or self._size >= _CHUNK_BYTES else None

    def _cut(self) -> list[bytes]:
        run, self._lines, self._size = self._lines, [], 0
        return run

    def _item(self, line: bytes) -> bytes:
        if len(line) > MOST_LINE_BYTES:
            raise PayloadTooLarge(f"Line {self._line_number} is longer than {MOST_LINE_BYTES} bytes.")
        try:
            item = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._wrong(f"is not JSON: {error.msg}") from None
        if not is_wrapped(item):
            raise self._wrong("must be an object with 'payload' and maybe 'custom_id'")
        refused = documents.refusal(line, item)
        if refused is not None:
            raise self._wrong(f"cannot be taken: {refused.detail[:-1]}")
        custom_id = item.get("custom_id")
        if custom_id is not None:
            self._require_new(custom_id)
        return line

    def _require_new(self, custom_id: object) -> None:
        try:
            require_custom_id(custom_id)
        except ValueError as error:
            raise self._wrong(f"cannot be taken: {error}") from None
        # A clash of hashes is one in a million uploads of the greatest length.
        if not self.custom_ids.add(str(custom_id)):
            raise self._wrong(f"repeats the custom_id {custom_id!r}")

    def _wrong(self, what: str) -> InvalidInput:
        detail = f"Line {self._line_number} {what}."
        return InvalidInput(detail, errors=[FieldError(pointer=f"/{self._line_number - 1}", detail=detail)])


def message(batch_id: UUID, owner_id: str, offset: int, run: list[bytes]) -> Outgoing:
    """Return an `AppendItems` command built around lines that are JSON already."""
    head = orjson.dumps({"batch_id": str(batch_id), "owner_id": owner_id, "offset": offset})
    return Outgoing(
        exchange=COMMANDS,
        routing_key=AppendItems.queue,
        body=head[:-1] + b',"items":[' + b",".join(run) + b"]}",
        message_type=AppendItems.message_type,
        message_id=str(new_id()),
        headers=stamp(tenant=owner_id),
    )


@dataclass
class Source:
    """The parts of an upload as they come from the network, each within `patience_s` seconds.

    `has_read` hears how many bytes were dealt with, which lets more come; `digest` sees all of them.
    Raises `UploadStalled` when no part comes.
    """

    parts: AsyncIterator[bytes]
    has_read: Callable[[int], None]
    digest: hashlib._Hash
    patience_s: float = 60

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._next()) is not None:
            self.digest.update(part)
            yield part
            self.has_read(len(part))

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(self.patience_s):
                return await anext(self.parts, None)
        except TimeoutError:
            raise UploadStalled(f"Nothing came for {self.patience_s:.0f} s; send the upload again.") from None


async def cut(source: AsyncIterable[bytes], cutter: Cutter) -> AsyncIterator[list[bytes]]:
    """Yield the runs of an upload as they are complete."""
    async for part in source:
        for start in range(0, len(part), _TURN_BYTES):
            for run in cutter.feed(part[start : start + _TURN_BYTES]):
                yield run
            # A fast client must not starve the rest of the gateway.
            await asyncio.sleep(0)
    last = cutter.finish()
    if last:
        yield last
