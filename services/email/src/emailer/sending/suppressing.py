"""The last check of suppressions before a mail is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from chassis.postgres import DATABASE_FAILURES, Postgres
from emailer.mails.stored_mail import AttemptRecord
from emailer.sending import attempts
from emailer.sending.attempts import Job, RecipientOutcome
from emailer.suppression import repository

# A claim checks suppressions; a recipient claimed longer ago than this is checked again.
LOOK_AGAIN_S = 2.0


async def look_again(
    postgres: Postgres, job: Job, *, draft: Callable[[], AttemptRecord]
) -> RecipientOutcome | None:
    """Return the outcome for a recipient that was suppressed while it waited for a connection, or None."""
    if time.monotonic() - job.taken_at <= LOOK_AGAIN_S:
        return None
    try:
        async with postgres.connection() as connection:
            reasons = await repository.reasons(connection, [job.target])
    except DATABASE_FAILURES:
        return attempts.given_back(job, at=datetime.now(UTC))
    return attempts.suppressed(job, reasons[job.target], draft=draft()) if reasons else None
