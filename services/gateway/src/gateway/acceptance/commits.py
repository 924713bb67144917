"""Group commit: acceptances that arrive together share one transaction, and so one disk flush."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg

from chassis import shares
from gateway.acceptance.repository import Work

MOST_TOGETHER = 64

Waiting = tuple[Work, "asyncio.Future[bool]"]
Accept = Callable[[Sequence[Work]], Awaitable[set[UUID]]]


class GroupCommit:
    """Hands work to `accept` in groups.

    The first caller commits at once; those that arrive during a commit wait for the next one, which takes
    all of them. Under load a group grows with the time that a commit takes; without load no caller waits.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._waiting: list[Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    async def add(self, work: Work) -> bool:
        """Commit `work`; return whether it was new. A caller that gives up does not stop the commit."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
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
            await self._commit(self._take())

    async def _commit(self, group: Sequence[Waiting]) -> None:
        try:
            accepted = await self._accept([work for work, _ in group])
        except asyncpg.DataError as error:
            if len(group) == 1:
                _settle(group, error)
                return
            # One of them could not be stored; the others must not fail because of it.
            for one in group:
                await self._commit([one])
        except BaseException as error:
            _settle(group, error)
            if not isinstance(error, Exception):
                raise
        else:
            for work, done in group:
                if not done.done():
                    done.set_result(work.acceptance.id in accepted)

    def _take(self) -> list[Waiting]:
        """Return the next group: in order of arrival, without two that share a key or an id."""
        group: list[Waiting] = []
        later: list[Waiting] = []
        names: set[object] = set()
        for work, done in self._waiting:
            if done.done():
                # Its caller gave up before the commit started.
                continue
            own: set[object] = {work.acceptance.id}
            if work.key is not None:
                own.add((work.acceptance.owner_id, work.key.key))
            if work.unique is not None:
                own.add((work.acceptance.owner_id, "unique", work.unique.key))
            if len(group) == MOST_TOGETHER or names & own:
                later.append((work, done))
            else:
                group.append((work, done))
            names |= own
        self._waiting = later
        return group


def _settle(group: Sequence[Waiting], error: BaseException) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
