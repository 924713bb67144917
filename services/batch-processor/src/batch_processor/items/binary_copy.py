"""Rows of items and results in the binary format of PostgreSQL's COPY.

They are made here, since the driver, which looks at each value of each row, takes twice as long for them, and
the server reads them faster than the arguments of an INSERT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, repeat
from struct import Struct
from typing import NamedTuple
from uuid import UUID

# So many rows are copied, which takes more statements and less time for each row.
MANY = 20
BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_SIZE = Struct(">i")
# The number of columns; then each value behind its size: a batch and a position, and of a result its status,
# its attempts and the size of its text.
_ITEM = Struct(">hi16sii")
_SUCCESS = Struct(">hi16siii9sihi")


class ItemRun(NamedTuple):
    """Consecutive items of a batch from the position `offset` on, as JSON texts.

    `names` are the custom ids, `lines` those of the upload; each is None if no item has one.
    """

    batch_id: UUID
    offset: int
    names: Sequence[str | None] | None
    payloads: Sequence[bytes]
    lines: Sequence[int] | None

    def rows(self) -> Iterator[tuple[UUID, int, str | None, str, int | None]]:
        """Yield the items as they are stored."""
        names: Iterable[str | None] = self.names or repeat(None)
        lines: Iterable[int | None] = self.lines or repeat(None)
        for place, name, payload, line in zip(count(self.offset), names, self.payloads, lines, strict=False):
            yield self.batch_id, place, name, payload.decode(), line

    def to_copy(self) -> bytes:
        """Return the items in the format of COPY."""
        names: Iterable[bytes] = repeat(_NULL)
        if self.names is not None:
            names = (_NULL if name is None else _sized(name.encode()) for name in self.names)
        lines: Iterable[bytes] = repeat(_NULL)
        if self.lines is not None:
            lines = (_sized(_SIZE.pack(line)) for line in self.lines)
        begin, size, id_ = _ITEM.pack, _SIZE.pack, self.batch_id.bytes
        return b"".join(
            [
                begin(5, 16, id_, 4, place) + name + size(len(payload)) + payload + line
                for place, name, payload, line in zip(
                    count(self.offset), names, self.payloads, lines, strict=False
                )
            ]
        )


class Successes(NamedTuple):
    """Items of a batch that succeeded in their `attempt`; their results are JSON texts."""

    batch_id: UUID
    attempt: int
    positions: Sequence[int]
    results: Sequence[str]

    def to_copy(self) -> bytes:
        """Return the results in the format of COPY."""
        begin, id_, attempt = _SUCCESS.pack, self.batch_id.bytes, self.attempt
        return b"".join(
            [
                begin(5, 16, id_, 4, place, 9, b"succeeded", 2, attempt, len(result)) + result
                for place, result in zip(self.positions, map(str.encode, self.results), strict=True)
            ]
        )


def _sized(value: bytes) -> bytes:
    return _SIZE.pack(len(value)) + value
