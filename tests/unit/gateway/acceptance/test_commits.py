"""Group commit: requests that come together share a transaction, and none fails for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from chassis import shares
from chassis.broker.envelope import Outgoing
from chassis.errors import DatabaseUnavailable
from gateway.acceptance.commits import MOST_BYTES_TOGETHER, MOST_TOGETHER, GroupCommit
from gateway.acceptance.repository import Acceptance, Work
from gateway.http.calls import IdempotencyKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def work(number: int, *, key: str | None = None, owner: str = "ann", size: int = 0) -> Work:
    acceptance = Acceptance(UUID(int=number), owner, "email", "queued", None, NOW)
    message = Outgoing("commands", "email", b"x" * size, "email.send.v1", str(number))
    return Work(acceptance, [message], b"{}", "/", IdempotencyKey(key, b"h") if key else None)


class CommitDatabase:
    """Takes groups one at a time; a work whose number is in `unstorable` cannot be stored."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.unstorable: set[int] = set()
        self.known: set[int] = set()
        self.error: Exception | None = None

    async def accept(self, group: Sequence[Work]) -> set[UUID]:
        numbers = [one.acceptance.id.int for one in group]
        self.groups.append(numbers)
        await self.gate.wait()
        if self.error:
            raise self.error
        if self.unstorable & set(numbers):
            raise asyncpg.DataError("cannot be stored")
        new = set(numbers) - self.known
        self.known |= new
        return {UUID(int=number) for number in new}


@pytest.fixture
def database() -> CommitDatabase:
    return CommitDatabase()


@pytest.fixture
def commits(database: CommitDatabase) -> GroupCommit:
    return GroupCommit(database.accept)


async def test_a_single_acceptance_is_committed_at_once(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    assert await commits.add(work(1))
    assert database.groups == [[1]]


async def test_acceptances_that_arrive_during_a_commit_share_the_next(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.gate.clear()
    first = asyncio.create_task(commits.add(work(1)))
    while not database.groups:
        await asyncio.sleep(0)
    others = [asyncio.create_task(commits.add(work(number))) for number in range(2, 6)]
    await asyncio.sleep(0)
    database.gate.set()
    assert await asyncio.gather(first, *others) == [True] * 5
    assert database.groups == [[1], [2, 3, 4, 5]]


async def test_owners_take_turns_however_much_of_one_waits(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    waiting = [commits.add(work(number)) for number in range(1, 10 * MOST_TOGETHER)]
    waiting += [commits.add(work(number, owner="bob")) for number in (5001, 5002)]
    assert await asyncio.gather(*waiting) == [True] * len(waiting)
    assert {5001, 5002} < set(database.groups[0])
    assert max(map(len, database.groups)) == MOST_TOGETHER
    of_ann = [number for group in database.groups for number in group if number < 5000]
    assert of_ann == [*range(1, 10 * MOST_TOGETHER)]


async def test_large_work_of_an_owner_makes_no_commit_long(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    half = MOST_BYTES_TOGETHER // 2
    waiting = [commits.add(work(number, size=half)) for number in (1, 2, 3)]
    waiting += [commits.add(work(4, size=3 * half)), commits.add(work(5, owner="bob"))]
    assert await asyncio.gather(*waiting) == [True] * 5
    assert database.groups == [[1, 5, 2], [3], [4]]


async def test_much_work_with_one_key_is_committed_one_by_one_and_delays_nobody(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    waiting = [commits.add(work(number, key="k")) for number in range(1, 201)]
    waiting += [commits.add(work(number)) for number in (5001, 5002)]
    waiting.append(commits.add(work(6001, owner="bob")))
    assert await asyncio.gather(*waiting) == [True] * len(waiting)
    assert database.groups[0] == [1, 6001]
    assert [number for group in database.groups for number in group if number <= 200] == [*range(1, 201)]


async def test_each_caller_learns_whether_its_work_was_new(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.known = {2}
    assert await asyncio.gather(*(commits.add(work(number)) for number in (1, 2, 3))) == [True, False, True]


async def test_two_with_the_same_key_or_id_never_share_a_commit(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    together = [work(1, key="k"), work(2, key="k"), work(3, key="k", owner="bob"), work(1), work(4)]
    await asyncio.gather(*(commits.add(one) for one in together))
    assert database.groups == [[1, 3, 4], [2, 1]]


async def test_an_acceptance_that_cannot_be_stored_fails_alone(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.unstorable = {2}
    found = await asyncio.gather(*(commits.add(work(n)) for n in (1, 2, 3)), return_exceptions=True)
    assert (found[0], found[2]) == (True, True)
    assert isinstance(found[1], asyncpg.DataError)


async def test_work_of_one_owner_that_cannot_be_stored_does_not_delay_others_one_by_one(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.gate.clear()
    first = asyncio.create_task(commits.add(work(1)))
    while not database.groups:
        await asyncio.sleep(0)
    database.unstorable = set(range(100, 140))
    bad = [commits.add(work(number, owner="mallory")) for number in range(100, 140)]
    good = [
        commits.add(work(200 + number, owner=owner)) for number, owner in enumerate(("ann", "ann", "bob"))
    ]
    waiting = asyncio.gather(first, *bad, *good, return_exceptions=True)
    await asyncio.sleep(0)
    database.gate.set()
    found = await waiting
    assert [found[0], *found[-3:]] == [True] * 4
    assert all(isinstance(one, asyncpg.DataError) for one in found[1:-3])
    # After all of them together: those of each owner, the fewest first, and the bad ones by themselves.
    assert database.groups[2:5] == [[202], [200, 201], [*range(100, 140)]]
    assert database.groups[5:] == [[number] for number in range(100, 140)]


async def test_a_database_that_is_away_fails_all_and_the_next_ones_go_on(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.error = DatabaseUnavailable("away")
    found = await asyncio.gather(*(commits.add(work(n)) for n in (1, 2)), return_exceptions=True)
    assert all(isinstance(error, DatabaseUnavailable) for error in found)
    database.error = None
    assert await commits.add(work(3))


async def test_a_caller_that_gives_up_in_time_is_not_committed(
    commits: GroupCommit, database: CommitDatabase
) -> None:
    database.gate.clear()
    first = asyncio.create_task(commits.add(work(1)))
    while not database.groups:
        await asyncio.sleep(0)
    leaving, staying = (asyncio.create_task(commits.add(work(number))) for number in (2, 3))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    database.gate.set()
    assert await first
    assert await staying
    assert database.groups == [[1], [3]]


async def test_a_commit_is_for_all_who_wait_and_counts_in_the_share_of_none() -> None:
    seen: list[str] = []

    async def accept(group: Sequence[Work]) -> set[UUID]:
        seen.append(shares.current.get())
        return {one.acceptance.id for one in group}

    shares.current.set("ann")
    assert await GroupCommit(accept).add(work(1))
    assert (seen, shares.current.get()) == ([""], "ann")
