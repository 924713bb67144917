"""Sending answers: in pieces, no faster than the client takes them, and not more than there is room for."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from functools import partial

from chassis.errors import ServiceError
from chassis.loop_turns import LoopTurns
from gateway.http import problems
from gateway.http.bodies import LARGE_BYTES
from gateway.http.byte_room import ByteRoom, StreamRoom
from gateway.http.rates import LimitHeaders
from gateway.http.readers import Message, Readers, Send
from gateway.http.replies import CSV, EVENT_STREAM, JSON, HttpReply
from gateway.http.shared_bytes import SharedBytes

# Of answers over `LARGE_BYTES` that their clients have not taken yet.
MOST_BYTES = 32 * 1024 * 1024
PART_BYTES = 6 * 1024 * 1024
MOST_BYTES_OF_OWNER = 8 * 1024 * 1024
# A stream has up to two pages in hand, each of up to a megabyte: the one that is sent, and the next one.
STREAM_BYTES = 2 * 1024 * 1024
STREAMS_PART_BYTES = 6 * 1024 * 1024
MOST_STREAMS = 24
MOST_STREAMS_OF_OWNER = 8
# In the units of `LoopTurns`: of handing up to `LARGE_BYTES` to the system.
_WEIGHT_OF_A_PIECE = 60
_CONTENT_TYPES = {
    JSON: b"application/json",
    **{kind: f"{kind}; charset=utf-8".encode() for kind in (CSV, "text/html", "text/css", "text/javascript")},
}


class Sending:
    """Sends the answers of one gateway, and bounds what those to slow clients hold, per owner and in all.

    Beyond their parts, large answers and streams take of the bytes that are `shared` with request bodies. The
    pieces of large public answers leave in `turns`, because nothing bounds how many are sent at a time.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedBytes | None = None,
        turns: LoopTurns | None = None,
    ) -> None:
        self._turns = turns or LoopTurns()
        self._large = ByteRoom(
            "large answers",
            most=MOST_BYTES,
            of_owner=MOST_BYTES_OF_OWNER,
            part=PART_BYTES,
            shared=shared,
        )
        self._streams = StreamRoom(
            "answers that are streamed",
            each=STREAM_BYTES,
            most=MOST_STREAMS,
            of_owner=MOST_STREAMS_OF_OWNER,
            part=STREAMS_PART_BYTES,
            shared=shared,
        )
        self._large_readers = Readers(clock=clock)
        self._stream_readers = Readers(clock=clock)

    async def send(
        self,
        reply: HttpReply,
        send: Send,
        *,
        owner_id: str,
        is_head: bool,
        limit_headers: LimitHeaders | None = None,
        on_refusal: Callable[[ServiceError], None] = lambda _: None,
    ) -> None:
        """Send an answer to a request of an owner; to one that `is_head` without its body.

        An answer for which there is no room is replaced by the problem that says so, which `on_refusal` is
        called with, and one that has to give way to another owner's raises `AnswerCut`. What is for nobody
        in particular is the same for all, and event streams have a limit of their own.
        """
        body = reply.body
        is_small = body is None or (isinstance(body, bytes) and len(body) <= LARGE_BYTES)
        if is_small:
            await _write(reply, send, limit_headers, is_head=is_head)
            return
        is_free = is_head or not owner_id or reply.media_type == EVENT_STREAM
        async with AsyncExitStack() as stack:
            try:
                if isinstance(body, bytes) and not is_free:
                    hold = partial(self._large.hold_now, owner_id, len(body))
                    send = await stack.enter_async_context(self._large_readers.reading(owner_id, send, hold))
                elif not is_free:
                    hold = partial(self._streams.hold, owner_id)
                    send = await stack.enter_async_context(self._stream_readers.reading(owner_id, send, hold))
            except ServiceError as refusal:
                on_refusal(refusal)
                reply = problems.reply(refusal)
            if not owner_id:
                send = self._in_turns(send)
            if isinstance(body, AsyncGenerator):
                stack.push_async_callback(body.aclose)
            await _write(reply, send, limit_headers, is_head=is_head)

    def _in_turns(self, send: Send) -> Send:
        async def send_in_turn(message: Message) -> None:
            if message.get("body"):
                await self._turns.take("", weight=_WEIGHT_OF_A_PIECE)
            await send(message)

        return send_in_turn


async def _write(reply: HttpReply, send: Send, limit_headers: LimitHeaders | None, *, is_head: bool) -> None:
    body, headers = reply.body, _wire_headers(reply)
    if limit_headers is not None:
        headers += limit_headers()
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if is_head or body is None:
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(body, bytes):
        await _write_part(body, send, has_more=False)
    else:
        async for part in body:
            await _write_part(part, send, has_more=True)
        await send({"type": "http.response.body", "body": b""})


async def _write_part(part: bytes, send: Send, *, has_more: bool) -> None:
    # What is written and not taken is held by the connection: no more of it than a piece.
    last = max(0, len(part) - 1) // LARGE_BYTES * LARGE_BYTES
    for start in range(0, last, LARGE_BYTES):
        piece = part[start : start + LARGE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    rest = part[last:] if last else part
    await send({"type": "http.response.body", "body": rest, "more_body": has_more})


def _wire_headers(reply: HttpReply) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.cache:
        headers.append((b"cache-control", reply.cache.encode("latin-1")))
    if reply.etag:
        headers.append((b"etag", reply.etag.encode("latin-1")))
    if reply.status in (204, 304):
        return headers
    if isinstance(reply.body, bytes) or reply.body is None:
        headers.append((b"content-length", str(len(reply.body or b"")).encode()))
    if reply.body is not None:
        headers.append((b"content-type", _CONTENT_TYPES.get(reply.media_type) or reply.media_type.encode()))
    return headers
