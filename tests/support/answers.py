"""Answers, and clients that read them when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.http.bodies import LARGE_BYTES
from gateway.http.readers import Message
from gateway.http.replies import NDJSON, HttpReply
from gateway.http.sending import Sending

PAGE = b"x" * (1 << 20)


class AnswerReader:
    """Takes the head and, once it `is_reading`, the body of an answer."""

    def __init__(self, rooms: Sending, reply: HttpReply, owner_id: str, *, is_head: bool = False) -> None:
        self.messages: list[Message] = []
        self.is_reading = asyncio.Event()
        self.task = asyncio.create_task(rooms.send(reply, self._take, owner_id=owner_id, is_head=is_head))

    async def _take(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            await self.is_reading.wait()

    async def read(self) -> bytes:
        self.is_reading.set()
        await self.task
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])


async def rows(ended: list[str] | None = None) -> AsyncIterator[bytes]:
    try:
        yield b"1\n"
        yield b"2\n" * LARGE_BYTES
    finally:
        if ended is not None:
            ended.append("ended")


def stream(ended: list[str] | None = None) -> HttpReply:
    return HttpReply(rows(ended), 200, NDJSON)


async def begun(*clients: AnswerReader) -> list[int]:
    """Return the statuses of the answers, once the loop has run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [client.status for client in clients]
