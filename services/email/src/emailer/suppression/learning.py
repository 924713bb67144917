"""Learning about addresses from outcomes and bounces, in the transaction that records these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from chassis import logging, metrics
from chassis.postgres import Connection
from emailer.suppression import repository
from emailer.suppression.rules import Failure, FailureOrigin, SuppressionTerms, Target

log = logging.get(__name__)


async def learn_failures(
    connection: Connection, failures: Sequence[Failure], *, terms: SuppressionTerms
) -> None:
    """Count failures that speak against their addresses, and suppress those that have enough."""
    counting = [failure for failure in failures if failure.fault != "refused"]
    if not counting:
        return
    counts = await repository.note_failures(connection, counting, terms=terms)
    decided = [failure for failure in counting if terms.suppresses(failure, counts[failure.target])]
    for owner_id, number in Counter(failure.target.owner_id for failure in decided).items():
        if not await repository.has_room(connection, owner_id, most=terms.most_of_owner):
            decided = [failure for failure in decided if failure.target.owner_id != owner_id]
            metrics.EMAIL_SUPPRESSIONS.labels("no-room").inc(number)
            log.warning("no room for suppressions", owner_id=owner_id, most=terms.most_of_owner)
    for origin in await repository.suppress(connection, decided, terms=terms) if decided else ():
        metrics.EMAIL_SUPPRESSIONS.labels(origin).inc()


async def learn_successes(
    connection: Connection, targets: Collection[Target], *, origins: Sequence[FailureOrigin]
) -> None:
    """Lift suppressions that a success contradicts, and forget the failures.

    `origins` are those that the success is evidence against: that the relay took a mail does not
    contradict a bounce, which comes later.
    """
    if targets:
        lifted = await repository.forgive(connection, targets, origins=origins)
        metrics.EMAIL_SUPPRESSIONS.labels("success").inc(lifted)
