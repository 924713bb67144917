"""Updating of suppressions from the outcomes of attempts."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.postgres import Connection
from emailer.sending.attempts import RecipientOutcome
from emailer.suppression import learning
from emailer.suppression.rules import AddressFailure, SuppressionTerms


async def learn(
    connection: Connection, outcomes: Sequence[RecipientOutcome], *, terms: SuppressionTerms
) -> None:
    """Suppress refused addresses; lift suppressions that rest on earlier replies once a mail is accepted."""
    taken = {outcome.job.target for outcome in outcomes if outcome.status == "delivered"}
    failures = [
        AddressFailure(
            outcome.job.target,
            outcome.job.mail.id,
            outcome.fault,
            "reply",
            f"{outcome.attempt.code} {outcome.attempt.text}",
        )
        for outcome in outcomes
        if outcome.fault is not None and outcome.attempt is not None
    ]
    await learning.learn(connection, failures, taken=taken, origins=("reply",), terms=terms)
