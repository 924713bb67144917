"""Turns of owners at the event loop: work is done in small parts, between which the loop is free."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from chassis import logging

log = logging.get(__name__)

# Weights in units of about ten microseconds: of a usual command, and of all parts that begin in one pass. A
# request that waits for several answers waits for as many passes: with twice as much in each, requests beside
# 25,000 refused ones took twice as long, and quotes were 3 % more.
USUAL_WEIGHT = 10
MOST_IN_PASS = 100


class _WaitingPart(NamedTuple):
    """Work that waits for a turn, since a time of the loop."""

    weight: int
    work: Callable[[], None]
    since: float


class LoopTurns:
    """Begins parts of work that weigh `most` in each pass of the loop; owners that wait take turns.

    A part is what is done without a pause, such as a command up to its first wait. Its weight stands for the
    time that it takes: a usual command has `USUAL_WEIGHT`. After one that weighs more than a pass, the next
    passes begin nothing until it is made up for. In between, the loop serves everything else: however much
    one owner has sent at once, requests, timers and other sockets wait for a few parts only.
    """

    def __init__(self, *, most: int = MOST_IN_PASS) -> None:
        self._most = most
        self._left = most
        self._is_pass_due = False
        # The owners in the order of their turns.
        self._waiting: OrderedDict[str, deque[_WaitingPart]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """The number of parts that wait for a turn now."""
        return sum(map(len, self._waiting.values()))

    @property
    def oldest_s(self) -> float:
        """For how long the part has waited that waits the longest, in seconds."""
        if not self._waiting:
            return 0.0
        return asyncio.get_running_loop().time() - min(parts[0].since for parts in self._waiting.values())

    def run(self, owner_id: str, work: Callable[[], None], *, weight: int = USUAL_WEIGHT) -> None:
        """Call `work` now if this pass has room, and else in a turn of the owner."""
        if self.take_now(weight):
            work()
        else:
            self._wait(owner_id, weight, work)

    async def take(self, owner_id: str, *, weight: int = USUAL_WEIGHT) -> None:
        """Return at once if this pass has room, and else in a turn of the owner."""
        if self.take_now(weight):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait(owner_id, weight, partial(_begin, turn))
        await turn

    def take_now(self, weight: int) -> bool:
        """Return whether this pass has room for a part of `weight`, which must begin at once then."""
        self._expect_pass()
        # Parts that wait come first.
        if self._waiting or self._left <= 0:
            return False
        self._left -= weight
        return True

    def charge(self, weight: int) -> None:
        """Add `weight` to the work of the present turn, which turned out to be heavier."""
        self._expect_pass()
        self._left -= weight

    async def finish(self, *, within_s: float) -> None:
        """Wait until nothing waits for a turn any more, for a stop: `within_s` seconds at most."""
        until = asyncio.get_running_loop().time() + within_s
        while self._waiting and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0)
        if self._waiting:
            log.warning("work of owners was not begun before the stop", parts=self.waiting)

    def _wait(self, owner_id: str, weight: int, work: Callable[[], None]) -> None:
        part = _WaitingPart(weight, work, asyncio.get_running_loop().time())
        self._waiting.setdefault(owner_id, deque()).append(part)

    def _expect_pass(self) -> None:
        if not self._is_pass_due:
            self._is_pass_due = True
            asyncio.get_running_loop().call_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        self._is_pass_due = False
        self._left = min(self._most, self._left + self._most)
        while self._waiting and self._left > 0:
            owner_id, parts = next(iter(self._waiting.items()))
            weight, work, _ = parts.popleft()
            if parts:
                self._waiting.move_to_end(owner_id)
            else:
                del self._waiting[owner_id]
            self._left -= weight
            try:
                work()
            except Exception as error:  # of one owner: the others have their turns, too
                log.error("work failed in its turn at the event loop", owner_id=owner_id, exc_info=error)
        if self._waiting or self._left < self._most:
            self._expect_pass()


def _begin(turn: asyncio.Future[None]) -> None:
    # Its caller may have been cancelled.
    if not turn.done():
        turn.set_result(None)
