"""Suppressions on a real database: how they are made, which mails they stop, and how they are lifted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, NotFound
from chassis.postgres import Connection
from contracts.emails import EmailFilter, RetryEmails
from contracts.suppressions import (
    AddSuppressions,
    GetSuppression,
    LiftSuppression,
    LiftSuppressions,
    ListSuppressions,
    Suppression,
    SuppressionEntry,
    SuppressionFilter,
    SuppressionsAdded,
)
from emailer.errors import TooManySuppressions
from emailer.mails import choosing
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.sending import suppressing
from emailer.suppression import learning
from emailer.suppression.answers import SuppressionAnswers
from emailer.suppression.rules import AddressFailure, SuppressionTerms, Target
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail
from support.doubles.smtp import Step
from support.waiting import until

READER = "reader@example.com"
SOON = Deadline.after(60)


async def add(
    post_office: PostOffice, *entries: SuppressionEntry, owner_id: str = OWNER, most: int = 100
) -> SuppressionsAdded:
    answers = SuppressionAnswers(post_office.postgres, most_of_owner=most)
    request = AddSuppressions(owner_id=owner_id, origin="manual", entries=list(entries))
    return await answers.add(request, SOON)


async def listed(post_office: PostOffice, **wanted: object) -> list[Suppression]:
    request = ListSuppressions(owner_id=OWNER, wanted=SuppressionFilter.model_validate(wanted))
    return (await post_office.suppressions.list(request, SOON)).data


async def execute(post_office: PostOffice, statement: str) -> None:
    async with post_office.postgres.connection() as connection:
        await connection.execute(statement)


def refusing(post_office: PostOffice, reply: str, *, times: int = 1) -> None:
    post_office.server.script(READER, *[Step("rcpt", reply)] * times)


async def test_an_address_that_is_gone_is_suppressed_at_its_first_failure(post_office: PostOffice) -> None:
    refusing(post_office, "550 5.1.1 no such user")
    first, second = mail(), mail(to=["Reader@EXAMPLE.com", "other@example.com"])
    await post_office.accept(first)
    async with post_office.delivering():
        await post_office.reaches(first, "failed")
        await post_office.accept(second)
        email = await post_office.reaches(second, "partially_delivered")
    (suppression,) = await listed(post_office)
    assert (suppression.address, suppression.stream, suppression.origin) == (READER, "transactional", "reply")
    assert (suppression.reason, suppression.email_id) == ("550 5.1.1 no such user", first.email_id)
    assert suppression.expires_at is not None
    assert suppression.expires_at - datetime.now(UTC) > timedelta(days=89)
    reported = email.recipients[0].attempts[0]
    assert [recipient.status for recipient in email.recipients] == ["suppressed", "delivered"]
    assert reported.outcome == "suppressed"
    assert reported.smtp_reply.endswith("(reply): 550 5.1.1 no such user")


async def test_two_permanent_refusals_suppress_an_address(post_office: PostOffice) -> None:
    refusing(post_office, "550 mailbox unavailable", times=2)
    async with post_office.delivering():
        for number in (1, 2):
            command = mail()
            await post_office.accept(command)
            await post_office.reaches(command, "failed")
            assert len(await listed(post_office)) == number - 1


async def test_a_refusal_for_policy_suppresses_no_address(post_office: PostOffice) -> None:
    refusing(post_office, "550 5.7.1 not from you", times=3)
    async with post_office.delivering():
        for _ in range(3):
            command = mail()
            await post_office.accept(command)
            await post_office.reaches(command, "failed")
    assert await listed(post_office) == []


async def test_a_success_forgets_the_failures_before_it(post_office: PostOffice) -> None:
    async with post_office.delivering():
        for status in ("failed", "delivered", "failed"):
            if status == "failed":
                refusing(post_office, "550 no")
            command = mail()
            await post_office.accept(command)
            await post_office.reaches(command, status)
    assert await listed(post_office) == []


async def test_a_delivery_lifts_suppressions_learned_from_the_relay_and_no_others(
    post_office: PostOffice,
) -> None:
    post_office.server.delay_s = 0.2
    mails = [mail(), mail(to=["other@example.com"])]
    await post_office.accept(*mails)
    async with post_office.delivering():
        # Both are under way when their addresses are suppressed.
        await until(lambda: len(post_office.server.commands) > 1)
        await add(post_office, SuppressionEntry(address="other@example.com"))
        await execute(
            post_office,
            "INSERT INTO suppressions (id, owner_id, address, stream, origin, reason)"
            f" SELECT gen_random_uuid(), '{OWNER}', '{READER}', stream, origin, ''"
            " FROM (VALUES ('transactional', 'reply'), ('bulk', 'reply')) AS given (stream, origin)",
        )
        for one in mails:
            await post_office.reaches(one, "delivered")
    left = sorted((one.stream, one.origin) for one in await listed(post_office))
    assert left == [("all", "manual"), ("bulk", "reply")]


async def test_a_suppression_that_is_added_while_a_mail_waits_applies_to_it(post_office: PostOffice) -> None:
    command = mail(send_at=datetime.now(UTC) + timedelta(seconds=1))
    await post_office.accept(command)
    await add(post_office, SuppressionEntry(address=READER, reason="asked on the phone"))
    async with post_office.delivering():
        email = await post_office.reaches(command, "suppressed")
    assert email.recipients[0].status == "suppressed"
    assert "asked on the phone" in email.recipients[0].attempts[0].smtp_reply
    assert post_office.server.received == []


async def test_a_suppression_that_is_added_while_a_mail_waits_for_a_connection_applies_to_it(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressing, "LOOK_AGAIN_S", 0.1)
    post_office.server.delay_s = 0.2
    slow, waiting = mail(to=["slow@example.com"]), mail()
    await post_office.accept(slow, waiting)
    async with post_office.delivering(DispatcherTerms(connections=1)):
        await until(lambda: post_office.server.commands)
        await add(post_office, SuppressionEntry(address=READER))
        await post_office.reaches(slow, "delivered")
        await post_office.reaches(waiting, "suppressed")
    assert [received.recipient for received in post_office.server.received] == ["slow@example.com"]


async def test_a_lifted_suppression_lets_the_mail_be_retried(post_office: PostOffice) -> None:
    (made,) = (await add(post_office, SuppressionEntry(address=READER))).data
    command = mail()
    await post_office.accept(command)
    assert (await post_office.read(command)).recipients[0].status == "suppressed"
    await post_office.suppressions.lift(LiftSuppression(suppression_id=made.id, owner_id=OWNER), SOON)
    request = RetryEmails(owner_id=OWNER, wanted=EmailFilter(status=["suppressed"]))
    async with post_office.postgres.connection() as connection:
        await choosing.decide(connection, request, choosing.RETRY, life_s=3600)
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")


async def test_suppressions_apply_to_one_stream_of_one_owner(post_office: PostOffice) -> None:
    await add(post_office, SuppressionEntry(address=READER, stream="bulk"))
    bulk, transactional, others = mail(stream="bulk"), mail(), mail(stream="bulk", owner_id="another")
    await post_office.accept(bulk, transactional, others)
    statuses = [(await post_office.read(one)).recipients[0].status for one in (bulk, transactional, others)]
    assert statuses == ["suppressed", "queued", "queued"]


async def test_suppressions_are_listed_chosen_and_lifted_by_their_owner_only(post_office: PostOffice) -> None:
    entries = [SuppressionEntry(address=f"Reader {n} <r{n}@EXAMPLE.com>") for n in range(5)]
    made = (await add(post_office, *entries)).data
    await add(post_office, SuppressionEntry(address="r0@example.com"), owner_id="another")
    answers = post_office.suppressions
    first = await answers.list(ListSuppressions(owner_id=OWNER, limit=3), SOON)
    rest = await answers.list(ListSuppressions(owner_id=OWNER, before=first.next_cursor, limit=3), SOON)
    assert [one.id for one in first.data + rest.data] == [one.id for one in reversed(made)]
    assert rest.next_cursor is None
    assert [one.address for one in await listed(post_office, address="R2@Example.com")] == ["r2@example.com"]
    assert await listed(post_office, origin=["bounce"]) == await listed(post_office, stream=["bulk"]) == []
    with pytest.raises(NotFound):
        await answers.get(GetSuppression(suppression_id=made[0].id, owner_id="another"), SOON)
    with pytest.raises(NotFound):
        await answers.lift(LiftSuppression(suppression_id=made[0].id, owner_id="another"), SOON)
    wanted = SuppressionFilter(origin=["manual"])
    seen = await answers.lift_matching(LiftSuppressions(owner_id=OWNER, wanted=wanted, dry_run=True), SOON)
    assert (seen.matched, seen.changed, seen.complete, len(await listed(post_office))) == (5, 5, True, 5)
    done = await answers.lift_matching(LiftSuppressions(owner_id=OWNER, wanted=wanted), SOON)
    assert (done.changed, await listed(post_office)) == (5, [])


async def test_adding_again_replaces_reason_and_end_and_bad_addresses_are_refused(
    post_office: PostOffice,
) -> None:
    (first,) = (await add(post_office, SuppressionEntry(address=READER, reason="a"))).data
    again = await add(post_office, SuppressionEntry(address=READER.upper(), reason="b"))
    assert (again.added, again.data[0].id, again.data[0].reason) == (0, first.id, "b")
    with pytest.raises(InvalidInput):
        await add(post_office, SuppressionEntry(address="x@example.com"), SuppressionEntry(address="nobody"))
    assert len(await listed(post_office)) == 1


async def test_an_owner_has_a_bounded_number_of_suppressions_however_it_asks(post_office: PostOffice) -> None:
    entries = [SuppressionEntry(address=f"r{number}@example.com") for number in range(8)]
    made = await asyncio.gather(
        *(add(post_office, entry, most=5) for entry in entries), return_exceptions=True
    )
    assert sum(isinstance(one, TooManySuppressions) for one in made) == 3
    assert len(await listed(post_office)) == 5
    refusing(post_office, "550 5.1.1 no such user")
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(suppression=SuppressionTerms(most_of_owner=5))):
        await post_office.reaches(command, "failed")
    assert len(await listed(post_office)) == 5


async def test_an_expired_suppression_stops_no_mail_and_is_removed(post_office: PostOffice) -> None:
    await add(post_office, SuppressionEntry(address=READER), SuppressionEntry(address="b@example.com"))
    await execute(
        post_office,
        f"UPDATE suppressions SET expires_at = now() - interval '1 s' WHERE address = '{READER}'",
    )
    command = mail()
    await post_office.accept(command)
    assert (await post_office.read(command)).recipients[0].status == "queued"
    assert len(await listed(post_office)) == 1
    removed = await removal.remove(post_office.postgres, Retention())
    assert removed["suppression"] == 1


async def test_suppressions_that_are_added_and_learned_at_once_do_not_wait_for_each_other_crosswise(
    post_office: PostOffice,
) -> None:
    async def learn(connection: Connection, address: str) -> None:
        failure = AddressFailure(
            Target(OWNER, "transactional", address), new_id(), "gone", "reply", "550 gone"
        )
        await learning.learn(connection, [failure], taken=(), origins=("reply",), terms=SuppressionTerms())

    entries = [
        SuppressionEntry(address=f"{name}@example.com", stream="transactional", reason="asked")
        for name in "ba"
    ]
    async with post_office.postgres.transaction() as connection:
        await learn(connection, "a@example.com")
        adding = asyncio.create_task(add(post_office, *entries))
        await until(post_office.has_waiting_lock)
        await learn(connection, "b@example.com")
    assert len((await adding).data) == 2
