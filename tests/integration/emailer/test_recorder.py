"""Outcomes are written once and whole: two processes, lost leases, and a database that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from chassis.broker.envelope import new_id
from contracts.emails import Email, SendEmail
from emailer.mails import repository
from emailer.mails.stored_mail import AttemptRecord
from emailer.sending import attempts
from emailer.sending.attempts import Job, Patience, RecipientOutcome
from emailer.sending.recorder import OutcomeRecorder
from support import limbo
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import Step
from support.waiting import until

READER = "reader@example.com"


def outcomes(email: Email) -> list[str]:
    return [attempt.outcome for attempt in email.recipients[0].attempts]


async def test_mails_that_a_killed_process_was_sending_count_as_ambiguous_and_are_repeated(
    post_office: PostOffice,
) -> None:
    command = mail()
    await post_office.accept(command)
    await post_office.claim(lease_s=0.2)
    assert (await post_office.read(command)).status == "sending"
    async with post_office.delivering():
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["ambiguous", "delivered"]


async def test_two_processes_send_every_mail_once(post_office: PostOffice) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(200)]
    await post_office.accept(*commands)
    async with post_office.delivering(), post_office.delivering():
        for command in commands:
            await post_office.reaches(command, "delivered")
    assert sorted(m.recipient for m in post_office.server.received) == sorted(c.to[0] for c in commands)


async def test_a_shared_mail_ends_when_two_processes_record_its_recipients(post_office: PostOffice) -> None:
    command = mail(to=[f"reader-{number}@example.com" for number in range(50)])
    await post_office.accept(command)
    async with (
        post_office.delivering(DispatcherTerms(window=8)),
        post_office.delivering(DispatcherTerms(window=8)),
    ):
        await until(lambda: _stored_status(post_office, command, "delivered"))
    assert len(post_office.server.received) == 50
    assert [event["status"] for event in await post_office.events()] == ["delivered"]


async def test_leases_are_renewed_while_the_relay_is_slow(post_office: PostOffice) -> None:
    # Twice as long as the lease in all. A loop of a busy machine that is held up for a second loses none.
    post_office.server.delay_s = 1
    command = mail()
    await post_office.accept(command)
    async with (
        post_office.delivering(DispatcherTerms(lease_s=3)),
        post_office.delivering(DispatcherTerms(lease_s=3)),
    ):
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["delivered"]
    assert len(post_office.server.received) == 1


async def test_a_delivery_is_recorded_even_by_a_process_that_lost_its_lease(post_office: PostOffice) -> None:
    post_office.server.delay_s = 0.3
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        await until(lambda: post_office.server.commands)
        async with post_office.postgres.connection() as connection:
            await connection.execute("UPDATE recipients SET holder = $1", new_id())
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["delivered"]


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled", "suppressed", "held"])
async def test_a_delivery_is_recorded_even_after_another_process_gave_the_mail_up(
    post_office: PostOffice, end: str
) -> None:
    post_office.server.delay_s = 0.3
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        await until(lambda: post_office.server.commands)
        async with post_office.postgres.connection() as connection:
            await connection.execute("UPDATE recipients SET status = $1, due_at = NULL, holder = NULL", end)
            await connection.execute("UPDATE emails SET status = $1", end)
        await until(lambda: _stored_status(post_office, command, "delivered"))
    assert outcomes(await post_office.read(command)) == ["delivered"]
    assert [event["status"] for event in await post_office.events()] == ["delivered"]
    assert await limbo.strays(post_office) == []


async def test_mails_outlive_a_database_that_loses_its_connections(post_office: PostOffice) -> None:
    post_office.server.delay_s = 0.02
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(60)]
    await post_office.accept(*commands)
    # Where the answer to a claim's commit is lost, only the lease brings the mails back.
    async with post_office.delivering(DispatcherTerms(lease_s=2)):
        for _ in range(5):
            received = len(post_office.server.received)
            await until(lambda: len(post_office.server.received) > received)  # noqa: B023 - awaited at once
            await post_office.cut_database_connections()
        for command in commands:
            await post_office.reaches(command, "delivered")
    assert len({mail.message["message-id"] for mail in post_office.server.received}) == 60


async def test_an_outcome_is_written_in_spite_of_a_deadlock(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    other = await asyncpg.connect(post_office.dsn)
    # The server ends the one that looks for deadlocks first.
    await other.execute("SET deadlock_timeout = '60s'")
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM emails FOR UPDATE")
    async with post_office.delivering():
        await until(lambda: _is(post_office, waiting, 1))
        await other.execute("UPDATE recipients SET size_bytes = size_bytes")
        await transaction.rollback()
        email = await post_office.reaches(command, "delivered")
    await other.close()
    assert outcomes(email) == ["delivered"]
    assert len(post_office.server.received) == 1


async def test_an_outcome_that_no_database_would_take_delays_no_other(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = mail(to=["bad@example.com"]), mail()
    answered = attempts.answered

    def answer(job: Job, *arguments: Any, draft: AttemptRecord, **settings: Any) -> RecipientOutcome | None:
        host = "a\0b" if job.address == "bad@example.com" else draft.host
        return answered(job, *arguments, draft=replace(draft, host=host), **settings)

    monkeypatch.setattr(attempts, "answered", answer)
    await post_office.accept(bad, good)
    async with post_office.delivering():
        email = await post_office.reaches(good, "delivered")
        await until(lambda: len(post_office.server.received) == 2)
    assert outcomes(email) == ["delivered"]
    assert (await post_office.read(bad)).status == "sending"


async def _is(post_office: PostOffice, question: str, wanted: int) -> bool:
    async with post_office.postgres.connection() as connection:
        return bool(await connection.fetchval(question) == wanted)


async def _stored_status(post_office: PostOffice, command: SendEmail, status: str) -> bool:
    async with post_office.postgres.connection() as connection:
        counts = await repository.count(connection, owner_id=command.owner_id)
    return counts.counts == {status: 1}


async def test_a_mail_that_is_due_again_at_once_is_never_left_behind(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = OutcomeRecorder.write

    async def write_and_linger(self: OutcomeRecorder, group: Sequence[RecipientOutcome]) -> None:
        # Long enough for a claim between the commit and the dispatcher's knowing of it.
        await write(self, group)
        await asyncio.sleep(0.3)

    monkeypatch.setattr(OutcomeRecorder, "write", write_and_linger)
    post_office.server.script(READER, *[Step("rcpt", "451 later")] * 3)
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(patience=Patience(scale=1e-9))):
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["deferred"] * 3 + ["delivered"]


async def test_a_stop_ends_a_dispatcher_however_closely_it_was_woken_before(post_office: PostOffice) -> None:
    for steps_between in range(6):
        dispatcher, route = post_office.dispatcher()
        running = asyncio.create_task(dispatcher.run())
        # Until nothing is left to do but to wait.
        await asyncio.sleep(0.3)
        dispatcher.wake()
        for _ in range(steps_between):
            await asyncio.sleep(0)
        running.cancel()
        assert await asyncio.wait({running}, timeout=5) == ({running}, set()), steps_between
        route.close()
