"""Limits on the memory that requests and answers hold, per owner and in total."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from chassis import metrics, shares, threads
from chassis.errors import Overloaded, ServiceError, TooManyAtOnce
from chassis.places import Places
from gateway.http.shared_bytes import SharedBytes

# How long a request waits for room until others have been answered.
MOST_FOR_ROOM_S = 5.0


class ByteRoom:
    """A limit on the bytes of `what` (a plural noun) that are held at once, in total and per owner.

    Owners that hold some leave room for those that hold none (`shares.has_room`). A body of more than
    an eighth of `reserve` leaves `reserve` bytes to lighter ones. Bytes beyond `part` in all are taken from
    those that are `shared` with other rooms.

    A body reserves its room before it is read, because two half-read bodies could wait for each other.
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
        # By owner, in the order of arrival; only the first one of each owner is considered.
        self._waiting: defaultdict[str, deque[tuple[int, asyncio.Future[int]]]] = defaultdict(deque)
        if shared is not None:
            shared.join(self._wake_all)

    @asynccontextmanager
    async def hold(self, owner_id: str, size: int, *, within_s: float) -> AsyncIterator[None]:
        """Hold `size` bytes during the block, and until the threads that use them have ended.

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
        """Take the bytes; return how many of them are shared ones, or None if there is no room."""
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
        """Admit the waiting bodies of an owner, in order, while there is room."""
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


class StreamRoom:
    """Places for streams of `what` (a plural noun) that hold about `each` bytes, in total and per owner."""

    def __init__(
        self, what: str, *, each: int, most: int, of_owner: int, part: int, shared: SharedBytes | None
    ) -> None:
        self._each = each
        self._places = Places(what, of_owner=of_owner, most=most)
        self._bytes = ByteRoom(what, most=most * each, of_owner=of_owner * each, part=part, shared=shared)

    @property
    def taken(self) -> int:
        """The number of streams."""
        return self._places.taken

    def taken_by(self, owner_id: str) -> int:
        """Return the number of streams of the owner."""
        return self._places.taken_by(owner_id)

    @contextmanager
    def hold(self, owner_id: str) -> Iterator[None]:
        """Hold the place and the bytes of a stream during the block. Raise `TooManyAtOnce`, `Overloaded`."""
        with self._places.hold(owner_id), self._bytes.hold_now(owner_id, self._each):
            yield
