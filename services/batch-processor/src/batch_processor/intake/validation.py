"""The check of sealed uploads, outside the intake: no two items of a batch may share a custom id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeAlias
from uuid import UUID

from batch_processor.background import rounds
from batch_processor.background.backoff import Backoff
from batch_processor.intake import repository
from batch_processor.intake.repository import COMPARED_WITHIN_S, Duplicate, Order
from batch_processor.operation import LEFT_TO_OTHERS_S
from chassis.postgres import Connection, Postgres

# For work that neither this process nor its lookout has found.
_IDLE_S = 30.0
# The first and the longest pause after an unexpected failure; it doubles each time.
_PAUSE_S = (5.0, 60.0)

ORDERS: tuple[Order, ...] = ("oldest", "smallest")
# The code and the detail of the problem that keeps a batch from starting.
Problem: TypeAlias = tuple[str, str]
# Starts a batch that has passed, or fails it with the problem, in the transaction of the check.
Begin: TypeAlias = Callable[[Connection, UUID, Problem | None], Awaitable[None]]


def describe(duplicates: Sequence[Duplicate] | None) -> Problem | None:
    """Return the problem of a batch that has `duplicates`, or whose ids could not be compared in time."""
    if duplicates is None:
        detail = f"Its custom ids could not be compared within {COMPARED_WITHIN_S} s; send it again later."
        return "validation-timeout", detail
    if not duplicates:
        return None
    ids = "; ".join(map(str, duplicates))
    more = ", the first of them" if len(duplicates) == 10 else ""
    return "duplicate-custom-id", f"Several items share a custom_id{more}: {ids}. Nothing was run."


class Validation:
    """Compares the custom ids of sealed uploads, and calls `begin` for each with the problem, if any.

    Several may run at once. `begun` is called when batches have left `validating`. Uploads of an operation
    that is not in `operations` are left for a while to a replica that has it.
    """

    def __init__(
        self,
        postgres: Postgres,
        begin: Begin,
        *,
        operations: Collection[str],
        begun: Callable[[], None],
    ) -> None:
        self._postgres = postgres
        self._operations = list(operations)
        self._begin = begin
        self._begun = begun
        self._backoff = Backoff(postgres, "validation", first_s=_PAUSE_S[0], most_s=_PAUSE_S[1])
        self._last_owners = dict.fromkeys(ORDERS, "")
        self._wakes = {order: asyncio.Event() for order in ORDERS}

    def wake(self) -> None:
        """Look soon for uploads to check."""
        for event in self._wakes.values():
            event.set()

    async def check_forever(self, order: Order) -> None:
        """Check uploads in `order`, until cancelled."""

        async def check_all() -> None:
            while await self.check(order):
                self._begun()

        while True:
            await rounds.attempt("validation", check_all)
            await rounds.wait(self._wakes[order], most_s=_IDLE_S)

    async def check(self, order: Order) -> bool:
        """Check the next upload that no other lane checks; return whether there was one.

        Only an advisory lock is held meanwhile, so that a cancel can lock the batch's row.
        """
        batch_id: UUID | None = None
        try:
            async with self._postgres.transaction() as connection:
                found = await repository.lock_next_upload(
                    connection,
                    order,
                    after_owner=self._last_owners[order],
                    but=self._backoff.ids(),
                    operations=self._operations,
                    left_to_others_s=LEFT_TO_OTHERS_S,
                )
                if found is None:
                    return False
                batch_id, self._last_owners[order] = found
                problem = describe(await repository.find_duplicates(connection, batch_id))
                await self._begin(connection, batch_id, problem)
        except Exception as error:
            await self._backoff.failed(batch_id, error)
        else:
            self._backoff.succeeded(batch_id)
        return True
