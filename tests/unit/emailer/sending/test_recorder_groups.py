"""Outcomes that keep coming are written together, even those that come while others are being written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from chassis.broker.publisher import Publisher
from chassis.outbox import OutboxRelay
from chassis.parked import park_unpublishable
from chassis.postgres import Postgres
from emailer.mails.stored_mail import StoredMail
from emailer.sending import attempts, recorder
from emailer.sending.attempts import Job, RecipientOutcome
from emailer.sending.recorder import OutcomeRecorder
from emailer.suppression.rules import SuppressionTerms

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def outcome() -> RecipientOutcome:
    mail = StoredMail(uuid4(), "o", None, NOW, None, NOW, 1, None, None)
    return attempts.expired(Job(mail, 0, "reader@example.com", 0, "queued"))


class NotingRecorder(OutcomeRecorder):
    """Notes the sizes of groups in place of writing them; five more outcomes come after the first."""

    def __init__(self) -> None:
        postgres = Postgres("postgresql://127.0.0.1:1/")
        relay = OutboxRelay(postgres, Publisher("amqp://127.0.0.1:1/"), park=park_unpublishable)
        super().__init__(
            postgres, relay, holder=uuid4(), suppression=SuppressionTerms(), recorded=self._noted
        )
        self.groups: list[int] = []
        self.all_written = asyncio.Event()

    async def write(self, group: Sequence[RecipientOutcome]) -> None:
        if not self.groups:
            # While the first is being written.
            for _ in range(10):
                self.add(outcome())
        self.groups.append(len(group))

    def _noted(self, group: Sequence[RecipientOutcome]) -> None:
        if len(self.groups) == 1:
            for _ in range(5):
                # Before the gathering is over, however slow the machine is: timers keep their order.
                asyncio.get_running_loop().call_later(0.01, self.add, outcome())
        if sum(self.groups) == 16:
            self.all_written.set()


async def test_outcomes_that_arrive_while_others_are_written_are_gathered_into_one_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "GATHER_S", 0.2)
    noting = NotingRecorder()
    running = asyncio.create_task(noting.run())
    noting.add(outcome())
    try:
        async with asyncio.timeout(30):
            await noting.all_written.wait()
    finally:
        running.cancel()
    assert noting.groups == [1, 15]


class DamagedRecorder(NotingRecorder):
    """Cannot write one of the outcomes, because its row is on a damaged page."""

    def __init__(self) -> None:
        super().__init__()
        self.damaged = outcome()
        self.written: list[RecipientOutcome] = []

    async def write(self, group: Sequence[RecipientOutcome]) -> None:
        if self.damaged in group:
            raise asyncpg.DataCorruptedError("invalid page in block 7")
        self.written += group

    def _noted(self, group: Sequence[RecipientOutcome]) -> None:
        self.all_written.set()


async def test_an_outcome_whose_row_is_damaged_keeps_no_other_from_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "PAUSE_S", 0.001)
    broken = DamagedRecorder()
    others = [outcome(), outcome()]
    for one in (others[0], broken.damaged, others[1]):
        broken.add(one)
    running = asyncio.create_task(broken.run())
    try:
        async with asyncio.timeout(30):
            await broken.all_written.wait()
            await broken.wait_writable()
    finally:
        running.cancel()
    assert broken.written == others
