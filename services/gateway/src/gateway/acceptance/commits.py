"""Group commit: acceptances that arrive together share one transaction, and so one disk flush."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg

from chassis import shares
from gateway.acceptance.repository import Work

MOST_TOGETHER = 64
# Of the messages of a group: one with more is committed alone.
MOST_BYTES_TOGETHER = 1 << 20
# Of an owner's work, that is passed over because of a key that work in front of it has.
_MOST_PASSED_OVER = 64

Waiting = tuple[Work, "asyncio.Future[bool]"]
Accept = Callable[[Sequence[Work]], Awaitable[set[UUID]]]


class GroupCommit:
    """Hands work to `accept` in groups.

    The first caller commits at once; those that arrive during a commit wait for the next one, which takes
    all of them. Under load a group grows with the time that a commit takes; without load no caller waits.
    If more wait than a group may have, owners take turns.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        # By owner, in the order of the owners' turns.
        self._waiting: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._committing: asyncio.Task[None] | None = None

    async def add(self, work: Work) -> bool:
        """Commit `work`; return whether it was new. A caller that gives up does not stop the commit."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(work.acceptance.owner_id, deque()).append((work, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_all())
        try:
            return await done
        finally:
            # The traceback of its error holds this frame: together they would stay until a collection.
            del done

    async def _commit_all(self) -> None:
        # For all who wait, and in the share of none.
        shares.current.set("")
        while self._waiting:
            if group := self._take():
                await self._commit(group)

    async def _commit(self, group: Sequence[Waiting]) -> None:
        try:
            accepted = await self._accept([work for work, _ in group])
        except asyncpg.DataError as error:
            if len(group) == 1:
                _settle(group, error)
                return
            # One of them could not be stored; the others must not fail because of it.
            for part in shares.parts_of(group, lambda one: one[0].acceptance.owner_id):
                await self._commit(part)
        except BaseException as error:
            _settle(group, error)
            if not isinstance(error, Exception):
                raise
        else:
            for work, done in group:
                if not done.done():
                    done.set_result(work.acceptance.id in accepted)

    def _take(self) -> list[Waiting]:
        """Return the next group: in turns of owners, without two that share a key or an id."""
        group: list[Waiting] = []
        names: set[object] = set()
        size = 0
        passed_over: defaultdict[str, list[Waiting]] = defaultdict(list)
        # The owners of which enough was passed over.
        left: dict[str, deque[Waiting]] = {}
        while self._waiting and len(group) < MOST_TOGETHER:
            owner_id, waiting = self._waiting.popitem(last=False)
            work, done = waiting[0]
            weight = sum(len(message.body) for message in work.messages)
            if group and size + weight > MOST_BYTES_TOGETHER:
                # It is the first of the next group.
                self._waiting[owner_id] = waiting
                self._waiting.move_to_end(owner_id, last=False)
                break
            waiting.popleft()
            # A caller may have given up before the commit started.
            if not done.done():
                own = _names(work)
                if names & own:
                    passed_over[owner_id].append((work, done))
                else:
                    group.append((work, done))
                    size += weight
                names |= own
            if waiting:
                is_next = len(passed_over[owner_id]) < _MOST_PASSED_OVER
                (self._waiting if is_next else left)[owner_id] = waiting
        for owner_id, some in passed_over.items():
            if some:
                waiting = self._waiting.get(owner_id) or left.get(owner_id) or deque()
                waiting.extendleft(reversed(some))
                self._waiting[owner_id] = waiting
        return group


def _names(work: Work) -> set[object]:
    """Return what only one piece of work of a group may have."""
    names: set[object] = {work.acceptance.id}
    if work.key is not None:
        names.add((work.acceptance.owner_id, work.key.key))
    if work.unique is not None:
        names.add((work.acceptance.owner_id, "unique", work.unique.key))
    return names


def _settle(group: Sequence[Waiting], error: BaseException) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
