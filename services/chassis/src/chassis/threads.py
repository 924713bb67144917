"""Work that would hold up the event loop, in a bounded number of threads, for which owners take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from chassis import metrics, shares
from chassis.deadlines import Deadline
from chassis.errors import DeadlineExceeded, TooManyAtOnce
from chassis.turns import OwnerTurns

T = TypeVar("T")

# Threads share one interpreter with the event loop: more of them do no more, but let it wait longer.
MOST_AT_ONCE = 4
MOST_OF_OWNER = 1
MOST_WAITING_OF_OWNER = 512

# The threads that have been started for the present task and have not ended.
_started: ContextVar[set[asyncio.Future[Any]] | None] = ContextVar("started threads", default=None)


class Threads:
    """Threads for computations of owners; the owner with the fewest threads is next.

    The default pool of asyncio serves whoever comes first, and goes on with the work of callers that have
    left: one owner could keep all others waiting.
    """

    def __init__(
        self,
        *,
        most: int = MOST_AT_ONCE,
        of_owner: int = MOST_OF_OWNER,
        most_waiting: int = MOST_WAITING_OF_OWNER,
    ) -> None:
        self.turns = OwnerTurns(most=most, of_owner=of_owner, most_waiting=most_waiting)
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="owners")

    async def run(
        self, work: Callable[[], T], *, until: Deadline | None = None, owner_id: str | None = None
    ) -> T:
        """Return the result of `work`, which runs in a thread when its owner has a turn.

        The owner is that of the present request (`shares.current`) unless another one is named. Raise
        `TooManyAtOnce` when too much work of the owner waits, or when this waited for other work of the owner
        until `until`, and `DeadlineExceeded` when there is no result by then for another reason. No
        connection or lock that others need may be held meanwhile.

        A caller that is cancelled leaves at once. Work that has begun goes on, and keeps its turn until the
        end.
        """
        owner = shares.current.get() if owner_id is None else owner_id
        has_turn = False
        try:
            async with asyncio.timeout(None if until is None else until.remaining_s()) as waiting:
                with metrics.THREAD_WAIT_SECONDS.time():
                    await self.turns.take(owner)
                has_turn = True
                if until is not None and not until.remaining_s():
                    self.turns.give_back(owner)
                    raise _too_late()
                thread = asyncio.get_running_loop().run_in_executor(
                    self._executor, partial(copy_context().run, work)
                )
                thread.add_done_callback(lambda _: self.turns.give_back(owner))
                # Nobody hears of its error once the caller has left, and that is no fault.
                thread.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                if (started := _started.get()) is not None:
                    started.add(thread)
                    thread.add_done_callback(started.discard)
                return await asyncio.shield(thread)
        except TimeoutError as error:
            if not waiting.expired():
                raise
            if not has_turn and self.turns.taken_by(owner):
                # No failure of the service, and not to be counted as one.
                raise TooManyAtOnce(
                    "Other requests of yours are being processed; wait for them to end.", retry_after_s=2
                ) from error
            raise _too_late() from error


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The request was not processed within the time that it allows: allow more, or send less.",
        retry_after_s=2,
    )


@contextmanager
def outlasting(release: Callable[[], object]) -> Iterator[None]:
    """Call `release` once the block has ended and with it all threads that it started.

    When a caller is cancelled, its thread goes on and keeps what it works with in memory.
    """
    outer, own = _started.get(), set[asyncio.Future[Any]]()
    _started.set(own)
    try:
        yield
    finally:
        _started.set(outer)
        if outer is not None:
            outer |= own
            for thread in own:
                thread.add_done_callback(outer.discard)
        if own:
            ended = asyncio.gather(*own, return_exceptions=True)
            ended.add_done_callback(lambda _: release())
        else:
            release()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Threads] = WeakKeyDictionary()


def of_process() -> Threads:
    """Return the threads of this process, which has one event loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Threads()
    return found


async def run(work: Callable[[], T], *, until: Deadline | None = None, owner_id: str | None = None) -> T:
    """Return the result of `work`, computed by the threads of this process (see `Threads.run`)."""
    return await of_process().run(work, until=until, owner_id=owner_id)
