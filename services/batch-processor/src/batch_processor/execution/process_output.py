"""What an item process writes to its standard output and error, passed on slowly enough for any log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio import ReadTransport, StreamReader, StreamReaderProtocol
from typing import Self

# Beyond this rate a process waits, and so its items end at their deadline.
OUTPUT_BYTES_A_SECOND = 256 * 1024
_PART_BYTES = 16 * 1024
# What a process wrote last is read within this time: one that it has started may keep the pipe open.
_LAST_S = 1


class ProcessOutput:
    """Reads the pipe of one process, and writes what comes to the standard error of this one."""

    def __init__(self, reader: StreamReader, transport: ReadTransport) -> None:
        self._reader = reader
        self._transport = transport
        self._passing_on = asyncio.create_task(self._pass_on())

    @classmethod
    async def of(cls, pipe: int) -> Self:
        """Begin to read from the descriptor `pipe`, which is closed at the end."""
        reader = StreamReader(limit=_PART_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
        )
        return cls(reader, transport)

    async def end(self) -> None:
        """Pass on what the process wrote last; call this once it is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await self._passing_on
        self._transport.close()

    async def _pass_on(self) -> None:
        """Write whole lines, so that they do not mix with those of others; a long one comes in parts."""
        rest = b""
        while part := await self._reader.read(_PART_BYTES):
            lines, end, rest = (rest + part).rpartition(b"\n")
            if len(rest) > _PART_BYTES:
                lines, end, rest = lines + end + rest, b"", b""
            sys.stderr.write((lines + end).decode(errors="replace"))
            sys.stderr.flush()
            await asyncio.sleep(len(part) / OUTPUT_BYTES_A_SECOND)
        sys.stderr.write(rest.decode(errors="replace"))
        sys.stderr.flush()
