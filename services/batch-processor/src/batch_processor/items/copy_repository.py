"""Rows that are copied into the tables of items and results, on the caller's connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from batch_processor.items import binary_copy
from chassis.postgres import Connection

# Some two hundred rows.
_MANY_BYTES = 8 * 1024


class _Copied(Protocol):
    def to_copy(self) -> bytes: ...


async def copy(connection: Connection, table: str, columns: Sequence[str], runs: Iterable[_Copied]) -> None:
    """Store the rows of `runs`; others may use the loop after a large one."""

    async def source() -> AsyncIterator[bytes]:
        yield binary_copy.BEGIN
        for run in runs:
            rows = run.to_copy()
            yield rows
            if len(rows) > _MANY_BYTES:
                # The driver does not yield by itself.
                await asyncio.sleep(0)
        yield binary_copy.END

    await connection.copy_to_table(table, source=source(), columns=columns, format="binary")
