"""Answers to requests about suppressions: each owner sees and changes its own only."""

from __future__ import annotations

from chassis import metrics
from chassis.broker.answering import Answer
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from chassis.paging import page_of
from chassis.postgres import Postgres
from contracts import addresses
from contracts.message import FieldError, Request
from contracts.suppressions import (
    AddSuppressions,
    GetSuppression,
    LiftSuppression,
    LiftSuppressions,
    ListSuppressions,
    Suppression,
    SuppressionEntry,
    SuppressionFilter,
    Suppressions,
    SuppressionsAdded,
    SuppressionsLifted,
)
from emailer.errors import TooManySuppressions
from emailer.suppression import repository

# Suppressions lifted by one call.
MOST_LIFTED = 1000


class SuppressionAnswers:
    """Adds, shows and lifts suppressions. Another owner's suppression is not found."""

    def __init__(self, postgres: Postgres, *, most_of_owner: int) -> None:
        self._postgres = postgres
        self._most_of_owner = most_of_owner

    @property
    def table(self) -> dict[type[Request], Answer]:
        """The handler of each request."""
        return {
            AddSuppressions: self.add,
            ListSuppressions: self.list,
            GetSuppression: self.get,
            LiftSuppression: self.lift,
            LiftSuppressions: self.lift_matching,
        }

    async def add(self, request: AddSuppressions, _: Deadline) -> SuppressionsAdded:
        """Suppress addresses, all of them or none. Raise `InvalidInput` or `TooManySuppressions`."""
        entries: list[SuppressionEntry] = []
        for index, entry in enumerate(request.entries):
            try:
                address = addresses.parse(entry.address).comparable
            except ValueError as error:
                wrong = FieldError(pointer=f"/entries/{index}/address", detail=str(error))
                raise InvalidInput("An address is not valid; see errors.", errors=[wrong]) from None
            entries.append(entry.model_copy(update={"address": address}))
        async with self._postgres.transaction() as connection:
            written = await repository.add(
                connection, request.owner_id, entries, origin=request.origin, most=self._most_of_owner
            )
        if written is None:
            raise TooManySuppressions(self._most_of_owner)
        found, added = written
        metrics.EMAIL_SUPPRESSIONS.labels(request.origin).inc(added)
        return SuppressionsAdded(data=found, added=added)

    async def list(self, request: ListSuppressions, _: Deadline) -> Suppressions:
        """Return a page of suppressions, newest first."""
        wanted = _comparable(request.wanted)
        async with self._postgres.connection() as connection:
            found = await repository.page(
                connection, request.owner_id, wanted, before=request.before, limit=request.limit + 1
            )
        page, following = page_of(found, request.limit, lambda suppression: suppression.id)
        return Suppressions(data=page, next_cursor=following)

    async def get(self, request: GetSuppression, _: Deadline) -> Suppression:
        """Return a suppression. Raise `NotFound`."""
        async with self._postgres.connection() as connection:
            found = await repository.get(connection, request.owner_id, request.suppression_id)
        if found is None:
            raise NotFound(f"There is no suppression {request.suppression_id}.")
        return found

    async def lift(self, request: LiftSuppression, _: Deadline) -> Suppression:
        """Lift a suppression; return it as it was. Raise `NotFound`."""
        async with self._postgres.transaction() as connection:
            found = await repository.get(connection, request.owner_id, request.suppression_id)
            if found is None:
                raise NotFound(f"There is no suppression {request.suppression_id}.")
            await repository.lift(connection, request.owner_id, [found.id])
        metrics.EMAIL_SUPPRESSIONS.labels("lifted").inc()
        return found

    async def lift_matching(self, request: LiftSuppressions, _: Deadline) -> SuppressionsLifted:
        """Lift the suppressions that match, at most 1,000 of them."""
        wanted = _comparable(request.wanted)
        async with self._postgres.transaction() as connection:
            matched = await repository.count_matching(connection, request.owner_id, wanted)
            found = await repository.page(
                connection, request.owner_id, wanted, before=None, limit=MOST_LIFTED
            )
            changed = len(found)
            if not request.dry_run:
                changed = await repository.lift(connection, request.owner_id, [one.id for one in found])
                metrics.EMAIL_SUPPRESSIONS.labels("lifted").inc(changed)
        return SuppressionsLifted(matched=matched, changed=changed, complete=matched <= len(found))


def _comparable(wanted: SuppressionFilter) -> SuppressionFilter:
    if wanted.address is None:
        return wanted
    return wanted.model_copy(update={"address": addresses.parse(wanted.address).comparable})
