"""Retention of mails that have ended: removes first attachments, then content, and last the record itself.

Deleted templates are kept for as long as accepted mails must still be rendered from them.

A mail that has not ended is never touched. Removal takes as many steps of a bounded size as it needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from chassis import logging, metrics, redaction
from chassis.postgres import DATABASE_FAILURES, Postgres
from emailer.retention import repository

log = logging.get(__name__)

_STEP = 1000
_FOLD_EVERY_S = 5.0
_REMOVE_EVERY_S = 60.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Days for which content and record of a mail are kept after its end, and the failures of an address.

    An owner may choose other days for content and record, up to `most_…`, which the default may exceed.
    """

    content_days: float = 7
    record_days: float = 90
    failure_days: float = 90
    most_content_days: float = 90
    most_record_days: float = 400

    @property
    def content(self) -> tuple[float, float]:
        """The days for content: by default, and at most."""
        return self.content_days, max(self.content_days, self.most_content_days)

    @property
    def record(self) -> tuple[float, float]:
        """The days for records: by default, and at most."""
        return self.record_days, max(self.record_days, self.most_record_days)

    @property
    def steps(self) -> tuple[tuple[str, str, tuple[float, ...]], ...]:
        """For each step: the kind removed, the statement, and the statement's parameters after the limit."""
        return (
            ("", "sum_up_anew", ()),
            ("", "note_ends", ()),
            ("attachments", "remove_attachments", ()),
            ("content", "remove_content", self.content),
            ("record", "remove_emails", (*self.record, *self.content)),
            ("suppression", "remove_suppressions", ()),
            ("failure", "remove_failures", (self.failure_days,)),
            ("template", "remove_template_versions", ()),
            ("", "remove_templates", ()),
        )


async def remove(postgres: Postgres, retention: Retention) -> dict[str, int]:
    """Remove everything past its retention; return the numbers removed, by kind."""
    removed: dict[str, int] = {}
    for what, statement, parameters in retention.steps:
        count = _STEP
        while count == _STEP:
            async with postgres.connection() as connection:
                count = await repository.remove(connection, statement, parameters, most=_STEP)
            if what:
                removed[what] = removed.get(what, 0) + count
                metrics.EMAIL_REMOVED.labels(what).inc(count)
    return removed


async def keep_removing(postgres: Postgres, retention: Retention) -> None:
    """Remove rows past their retention, and measure the delay, until cancelled."""
    while True:
        try:
            await remove(postgres, retention)
            async with postgres.connection() as connection:
                days = await repository.removal_delay_days(connection, retention.content)
            metrics.EMAIL_REMOVAL_LATE.set(max(0.0, days) * _DAY_S)
        except DATABASE_FAILURES as error:
            log.warning("old mails could not be removed", reason=redaction.safe_message(error))
        await asyncio.sleep(_REMOVE_EVERY_S)


async def keep_counting(postgres: Postgres) -> None:
    """Fold changes into the stored counts until cancelled, so that a query has few left to add."""
    while True:
        count = 0
        try:
            async with postgres.connection() as connection:
                count = await repository.fold_counts(connection, most=_STEP)
        except DATABASE_FAILURES as error:
            log.warning("mail counts could not be updated", reason=redaction.safe_message(error))
        if count < _STEP:
            await asyncio.sleep(_FOLD_EVERY_S)
