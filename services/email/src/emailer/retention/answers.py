"""Answers to requests about retention: each owner has days of its own, or those of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.broker.answering import Answer
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from chassis.postgres import Postgres
from contracts.message import FieldError, Request
from contracts.retention import GetRetention, MailRetention, SetRetention
from emailer.errors import RetentionChangedMeanwhile
from emailer.retention import repository
from emailer.retention.removal import Retention

_NEVER_CHOSEN: Mapping[str, Any] = {
    "content_days": None,
    "record_days": None,
    "version": 0,
    "changed_at": None,
}


class RetentionAnswers:
    """Shows and changes for how long the mails of an owner are kept; `defaults` has the bounds, too."""

    def __init__(self, postgres: Postgres, defaults: Retention) -> None:
        self._postgres = postgres
        self._defaults = defaults

    @property
    def table(self) -> dict[type[Request], Answer]:
        """The handler of each request."""
        return {GetRetention: self.get, SetRetention: self.set}

    async def get(self, request: GetRetention, _: Deadline) -> MailRetention:
        """Return the days that apply to the mails of an owner."""
        async with self._postgres.connection() as connection:
            row = await repository.find_periods(connection, request.owner_id)
        return self._shown(_NEVER_CHOSEN if row is None else dict(row))

    async def set(self, request: SetRetention, _: Deadline) -> MailRetention:
        """Set the days of an owner; the next removal goes by them.

        Raise `InvalidInput` for more than the settings allow, or a record that ends before its content, and
        `RetentionChangedMeanwhile`.
        """
        wanted = self._shown({**_NEVER_CHOSEN, **request.model_dump(include={"content_days", "record_days"})})
        for name, days, most in (
            ("content_days", request.content_days, wanted.most_content_days),
            ("record_days", request.record_days, wanted.most_record_days),
        ):
            if days is not None and days > most:
                raise _invalid(name, f"may be {most:g} days at most")
        if request.record_days is not None and request.record_days < wanted.content_days:
            raise _invalid(
                "record_days", f"must be {wanted.content_days:g} at least: content is kept for as long"
            )
        async with self._postgres.connection() as connection:
            row = await repository.set_periods(connection, request)
        if row is None:
            raise RetentionChangedMeanwhile(
                f"The retention has changed since version {request.version}; read it again and retry."
            )
        return self._shown(dict(row))

    def _shown(self, row: Mapping[str, Any]) -> MailRetention:
        """Return the days that `retention.sql` applies for the row of an owner."""
        content, most_content = self._defaults.content
        record, most_record = self._defaults.record
        own_content, own_record = row["content_days"], row["record_days"]
        content = min(content if own_content is None else own_content, most_content)
        record = min(record if own_record is None else own_record, most_record)
        return MailRetention(
            content_days=content,
            record_days=max(content, record),
            chosen_content_days=own_content,
            chosen_record_days=own_record,
            most_content_days=most_content,
            most_record_days=max(most_content, most_record),
            version=row["version"],
            changed_at=row["changed_at"],
        )


def _invalid(name: str, what: str) -> InvalidInput:
    return InvalidInput(f"{name} {what}.", errors=[FieldError(pointer=f"/{name}", detail=what)])
