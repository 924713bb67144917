"""The check of sealed uploads, apart from the intake: no two items of a batch share a custom id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from uuid import UUID

import asyncpg

from batch_processor import rounds
from chassis import queries
from chassis.postgres import Connection, Postgres

_SQL = queries.load("batch_processor")
# Five million ids take some ten seconds on two cores.
_TIMEOUT_S = 240
_IDLE_S = 1.0

# In the lane of the smallest a short upload passes the longest; in that of the oldest none waits for ever.
Order: TypeAlias = Literal["oldest", "smallest"]
ORDERS: tuple[Order, ...] = ("oldest", "smallest")
# The code and the detail of what keeps a batch from starting.
Problem: TypeAlias = tuple[str, str]
# Starts a batch that has passed, or fails it with the problem, in the transaction of the check.
Begin: TypeAlias = Callable[[Connection, UUID, Problem | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A custom id of several items, and the lines of the first and the last of them."""

    custom_id: str
    first_line: int
    last_line: int
    items: int

    def __str__(self) -> str:
        """Return the custom id with its lines."""
        if self.items == 2:
            return f"{self.custom_id!r} on lines {self.first_line} and {self.last_line}"
        return f"{self.custom_id!r} on {self.items} lines from {self.first_line} to {self.last_line}"


async def find_duplicates(connection: Connection, batch_id: UUID) -> list[Duplicate]:
    """Return the first ten custom ids that several items of the batch share."""
    await connection.execute(_SQL["allow_time"], str(_TIMEOUT_S * 1000))
    # The server gives up first: then the connection is still good.
    rows = await connection.fetch(_SQL["find_duplicates"], batch_id, timeout=_TIMEOUT_S + 5)
    return [Duplicate(**row) for row in rows]


def describe(duplicates: Sequence[Duplicate]) -> Problem | None:
    """Return what is wrong with a batch that has `duplicates`, None without any."""
    if not duplicates:
        return None
    ids = "; ".join(map(str, duplicates))
    more = ", the first of them" if len(duplicates) == 10 else ""
    return "duplicate-custom-id", f"Several items share a custom_id{more}: {ids}. Nothing was run."


class Validation:
    """Compares the custom ids of sealed uploads, and hands each with what was found to `begin`.

    Several may run side by side. `begun` is called when batches have left `validating`.
    """

    def __init__(self, postgres: Postgres, begin: Begin, *, begun: Callable[[], None]) -> None:
        self._postgres = postgres
        self._begin = begin
        self._begun = begun
        self._wakes = {order: asyncio.Event() for order in ORDERS}

    def wake(self) -> None:
        """Look soon for uploads to check."""
        for event in self._wakes.values():
            event.set()

    async def check_forever(self, order: Order) -> None:
        """Check uploads in `order`, for ever."""

        async def check_all() -> None:
            while await self.check(order):
                self._begun()

        while True:
            await rounds.attempt("validation", check_all)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wakes[order].wait(), _IDLE_S)
            self._wakes[order].clear()

    async def check(self, order: Order) -> bool:
        """Check the next upload that no other lane checks; return whether there was one.

        Only an advisory lock is held meanwhile: a cancel finds the batch's row free.
        """
        async with self._postgres.transaction() as connection:
            for row in await connection.fetch(_SQL[f"next_validating_{order}"]):
                batch_id: UUID = row["id"]
                if await connection.fetchval(_SQL["lock_validation"], batch_id):
                    break
            else:
                return False
            try:
                async with connection.transaction():
                    problem = describe(await find_duplicates(connection, batch_id))
            except asyncpg.QueryCanceledError:
                problem = (
                    "validation-timeout",
                    f"Its custom ids could not be compared within {_TIMEOUT_S} s; send it again later.",
                )
            await self._begin(connection, batch_id, problem)
        return True
