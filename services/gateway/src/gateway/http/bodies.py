"""The bodies of requests: limits on their size and speed."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from chassis import metrics, shares, threads
from chassis.errors import Overloaded, PayloadTooLarge, ServiceError, TooManyAtOnce
from gateway.http.shared_bytes import SharedBytes

Message = MutableMapping[str, Any]

BODY = "tickwire.body"
# The limits of memory for bodies above `LARGE_BYTES`, in total and per owner, and for those above
# `SMALL_BYTES`. Smaller ones are bounded by the number of connections. The parts are what no others take.
MOST_BYTES = 64 * 1024 * 1024
PART_BYTES = 6 * 1024 * 1024
MOST_BYTES_OF_OWNER = 2 * 1024 * 1024
LARGE_BYTES = 64 * 1024
MOST_SMALLER_BYTES = 32 * 1024 * 1024
SMALLER_PART_BYTES = 6 * 1024 * 1024
MOST_SMALLER_BYTES_OF_OWNER = 8 * 1024 * 1024
SMALL_BYTES = 8 * 1024
# About the memory of documents that have been read, until their requests are answered: in total, and per
# owner. A body of a megabyte may become twenty of them. One below the last limit is not worth counting.
MOST_DOCUMENT_BYTES = 64 * 1024 * 1024
DOCUMENT_PART_BYTES = 12 * 1024 * 1024
MOST_DOCUMENT_BYTES_OF_OWNER = 32 * 1024 * 1024
# What heavy documents leave of that: two owners may each fill their share.
RESERVED_DOCUMENT_BYTES = MOST_DOCUMENT_BYTES // 8
LIGHT_BYTES = 16 * 1024
# How long one waits for room until others have been answered.
MOST_FOR_ROOM_S = 5.0
# A smaller document of more values than that, or of more lists and objects, is as slow to read.
_MANY_VALUES = 1_000
_BUFFERED_BYTES = 1 << 20


def is_slow(document: bytes) -> bool:
    """Return whether reading a JSON document would hold up the event loop, so that a thread should do it."""
    if len(document) >= LARGE_BYTES or document.count(b",") > _MANY_VALUES:
        return True
    return document.count(b"[") + document.count(b"{") > _MANY_VALUES


class ByteRoom:
    """A limit on the bytes of `what` (a plural noun) that are held at once, in total and per owner.

    Owners that hold some leave room for those that hold none (`shares.has_room`). Of these, a body of more
    than an eighth of `reserve` leaves that many bytes to lighter ones. What is more than `part` in all is of
    the bytes that are `shared` with other rooms.

    The body of a request reserves its room before it is read: two half-read bodies could wait for each other.
    """

    def __init__(
        self,
        what: str,
        *,
        most: int,
        of_owner: int,
        reserve: int = 0,
        part: int = 0,
        shared: SharedBytes | None = None,
    ) -> None:
        self._what = what
        self._most = most
        self._of_owner = of_owner
        self._reserve = reserve
        self._taken: Counter[str] = Counter()
        self._total = 0
        self._gauge = metrics.HTTP_HELD_BYTES.labels(what)
        # What is left of the part of this room.
        self._left = most if shared is None else part
        self._shared = shared
        # Of each owner in the order of arrival: whoever is first is the only one that is looked at.
        self._waiting: defaultdict[str, deque[tuple[int, asyncio.Future[int]]]] = defaultdict(deque)
        if shared is not None:
            shared.join(self._wake_all)

    @asynccontextmanager
    async def hold(self, owner_id: str, size: int, *, within_s: float) -> AsyncIterator[None]:
        """Hold `size` bytes during the block, and until the threads have ended that work with them.

        If no room becomes free within the time, raise `TooManyAtOnce` when the owner's share is used up, else
        `Overloaded`.
        """
        borrowed = self._take(owner_id, size)
        if borrowed is None:
            has_room: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting[owner_id].append((size, has_room))
            try:
                async with asyncio.timeout(within_s):
                    borrowed = await has_room
            except BaseException as error:
                if has_room.done() and not has_room.cancelled():
                    self._give_back(owner_id, size, has_room.result())
                else:
                    self._wake(owner_id)
                if not isinstance(error, TimeoutError):
                    raise
                raise self._refusal(owner_id, size) from None
        with threads.outlasting(partial(self._give_back, owner_id, size, borrowed)):
            yield

    @contextmanager
    def hold_now(self, owner_id: str, size: int) -> Iterator[None]:
        """Hold `size` bytes during the block; raise as `hold` does when there is no room at once."""
        borrowed = self._take(owner_id, size)
        if borrowed is None:
            raise self._refusal(owner_id, size)
        try:
            yield
        finally:
            self._give_back(owner_id, size, borrowed)

    def _refusal(self, owner_id: str, size: int) -> ServiceError:
        if self._is_over_share(owner_id, size):
            return TooManyAtOnce(
                f"The {self._what} of your requests may have {self._of_owner} bytes together, and fewer while"
                " those of others need room; wait until some of them have ended.",
                retry_after_s=1,
            )
        return Overloaded(
            f"The {self._what} of all requests may have {self._most} bytes together, and fewer while others"
            " need memory; try again in a moment.",
            retry_after_s=1,
        )

    def _is_over_share(self, owner_id: str, size: int) -> bool:
        # A body larger than the share is admitted if it is the owner's only one.
        own = self._taken[owner_id]
        if not own:
            return False
        held = self._total + size
        return own + size > self._of_owner or not shares.has_room(own + size - 1, held=held, most=self._most)

    def _take(self, owner_id: str, size: int) -> int | None:
        """Return how many of the bytes are shared ones, or None if there is no room."""
        most = self._most - self._reserve if size > self._reserve // 8 else self._most
        if (self._total and self._total + size > most) or self._is_over_share(owner_id, size):
            return None
        borrowed = 0 if self._shared is None else max(0, size - self._left)
        if borrowed and self._shared is not None and not self._shared.take(owner_id, borrowed):
            return None
        self._left -= size - borrowed
        self._taken[owner_id] += size
        self._total += size
        self._gauge.set(self._total)
        return borrowed

    def _give_back(self, owner_id: str, size: int, borrowed: int) -> None:
        self._taken[owner_id] -= size
        self._total -= size
        self._gauge.set(self._total)
        self._left += size - borrowed
        if not self._taken[owner_id]:
            del self._taken[owner_id]
        if borrowed and self._shared is not None:
            self._shared.give_back(owner_id, borrowed)
        else:
            self._wake_all()

    def _wake_all(self) -> None:
        for owner_id in list(self._waiting):
            self._wake(owner_id)

    def _wake(self, owner_id: str) -> None:
        """Let bodies of an owner that wait for room have it, the first one first, while there is room."""
        waiting = self._waiting[owner_id]
        while waiting:
            size, has_room = waiting[0]
            if not has_room.done():
                borrowed = self._take(owner_id, size)
                if borrowed is None:
                    return
                has_room.set_result(borrowed)
            waiting.popleft()
        del self._waiting[owner_id]


class BodyRooms:
    """The rooms for large and for smaller bodies, and for the documents that are read from them."""

    def __init__(self, shared: SharedBytes | None) -> None:
        self.large = ByteRoom(
            "large bodies", most=MOST_BYTES, of_owner=MOST_BYTES_OF_OWNER, part=PART_BYTES, shared=shared
        )
        self.smaller = ByteRoom(
            "bodies",
            most=MOST_SMALLER_BYTES,
            of_owner=MOST_SMALLER_BYTES_OF_OWNER,
            part=SMALLER_PART_BYTES,
            shared=shared,
        )
        self.documents = ByteRoom(
            "documents in memory",
            most=MOST_DOCUMENT_BYTES,
            of_owner=MOST_DOCUMENT_BYTES_OF_OWNER,
            reserve=RESERVED_DOCUMENT_BYTES,
            part=DOCUMENT_PART_BYTES,
            shared=shared,
        )
        # The bytes that any document counts as at most.
        self.heaviest_document = MOST_DOCUMENT_BYTES_OF_OWNER


class Body:
    """The body of a request, bounded in size and in speed.

    `limit` is the most bytes in all. When a handler has opened the body as a stream, the next part is
    read from the client only while less than 1 MiB waits for the handler: that is the back-pressure.

    Parts can arrive before the handler opens the body, while the key is looked up. If the body
    `may_be_stream`, parts beyond the normal limit wait until then.
    """

    def __init__(self, limit: int, *, may_be_stream: bool = False) -> None:
        self.limit = limit
        self._may_be_stream = may_be_stream
        self.received = 0
        self._read = 0
        self._is_stream = False
        self._is_wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def open_stream(self, limit: int) -> None:
        """Accept a body of up to `limit` bytes, no faster than the handler reads it."""
        self.limit = limit
        self._is_stream = True
        self._is_wanted.set()
        self._update()

    def has_read(self, count: int) -> None:
        """Note that the handler has read `count` more bytes."""
        self._read += count
        self._update()

    async def take(self, message: Message) -> None:
        """Count a part that arrived, and wait while too much is unread. Raise `PayloadTooLarge`."""
        self.received += len(message.get("body", b""))
        self._update()
        if self._may_be_stream and self.received > self.limit:
            await self._is_wanted.wait()
        if self._is_stream:
            await self._room.wait()

    def require_within(self, declared: str | None) -> None:
        """Raise `PayloadTooLarge` if the declared or received length exceeds the limit."""
        self._is_wanted.set()
        length = int(declared) if declared is not None and declared.isdecimal() else 0
        if max(length, self.received) > self.limit:
            raise PayloadTooLarge(
                f"The body may have at most {self.limit} bytes; send less, or send many items as NDJSON."
            )

    def _update(self) -> None:
        if self.received - self._read < _BUFFERED_BYTES:
            self._room.set()
        else:
            self._room.clear()
