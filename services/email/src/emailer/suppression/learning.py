"""Updating of suppressions from outcomes and bounces, in the transaction that records these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from chassis import logging, metrics
from chassis.postgres import Connection
from emailer.suppression import repository
from emailer.suppression.rules import AddressFailure, FailureOrigin, SuppressionTerms, Target

log = logging.get(__name__)


async def learn(
    connection: Connection,
    failures: Sequence[AddressFailure],
    *,
    taken: Collection[Target],
    origins: Sequence[FailureOrigin],
    terms: SuppressionTerms,
) -> None:
    """Lift suppressions of addresses in `taken`; count `failures`, and suppress addresses with too many.

    Only suppressions with one of these `origins` are lifted: that the relay accepted a mail does not
    contradict a bounce, which comes later.
    """
    counting = [failure for failure in failures if failure.fault != "refused"]
    forgivable = await repository.forgivable(connection, taken, origins=origins)
    owners = {failure.target.owner_id for failure in counting} | {target.owner_id for target in forgivable}
    await repository.lock(connection, owners)
    if forgivable:
        lifted = await repository.forgive(connection, forgivable, origins=origins)
        metrics.EMAIL_SUPPRESSIONS.labels("success").inc(lifted)
    if counting:
        await _suppress(connection, counting, terms=terms)


async def _suppress(
    connection: Connection, failures: Sequence[AddressFailure], *, terms: SuppressionTerms
) -> None:
    counts = await repository.note_failures(connection, failures, terms=terms)
    decided = [failure for failure in failures if terms.suppresses(failure, counts[failure.target])]
    for owner_id, number in Counter(failure.target.owner_id for failure in decided).items():
        if not await repository.has_room(connection, owner_id, most=terms.most_of_owner):
            decided = [failure for failure in decided if failure.target.owner_id != owner_id]
            metrics.EMAIL_SUPPRESSIONS.labels("no-room").inc(number)
            log.warning(
                "suppression limit reached, address not added", owner_id=owner_id, most=terms.most_of_owner
            )
    for origin in await repository.suppress(connection, decided, terms=terms) if decided else ():
        metrics.EMAIL_SUPPRESSIONS.labels(origin).inc()
