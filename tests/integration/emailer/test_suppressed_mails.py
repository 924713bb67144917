"""The mail, lists, counts and events report the same state of a mail to suppressed addresses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chassis import migrations
from chassis.broker.envelope import Delivery, new_id
from chassis.broker.handlers import InTransaction
from chassis.deadlines import Deadline
from chassis.settings import load
from contracts.emails import CancelEmails, EmailFilter, ListEmails, RetryEmails, SendEmail
from contracts.suppressions import AddSuppressions, LiftSuppressions, SuppressionEntry, SuppressionFilter
from emailer import consumers
from emailer.mails import choosing, repository, states
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.settings import EmailSettings
from support.doubles.post_office import OWNER, PostOffice, mail
from support.doubles.smtp import Step

GONE, READER = "gone@example.com", "reader@example.com"
SOON = Deadline.after(60)
LATER = datetime.now(UTC) + timedelta(hours=1)


async def suppress(post_office: PostOffice, *addresses: str) -> None:
    entries = [SuppressionEntry(address=address) for address in addresses]
    request = AddSuppressions(owner_id=OWNER, origin="manual", entries=entries)
    await post_office.suppressions.add(request, SOON)


async def reported(post_office: PostOffice, command: SendEmail) -> set[str]:
    """Return the status of the only mail, which every answer that shows it must agree on."""
    wanted = EmailFilter(status=[(await post_office.read(command)).status])  # type: ignore[list-item]
    async with post_office.postgres.connection() as connection:
        request = ListEmails(owner_id=OWNER, wanted=wanted, before=None, limit=50)
        (line,) = (await choosing.list_emails(connection, request)).data
        (counted,) = (await repository.count(connection, owner_id=OWNER)).counts.items()
    assert counted[1] == 1
    events = [event["status"] for event in await post_office.events()]
    return {(await post_office.read(command)).status, line.status, counted[0], *events[-1:]}


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ([GONE], "suppressed"),
        ([GONE, "gone2@example.com"], "suppressed"),
        ([GONE, READER], "partially_delivered"),
        ([GONE, "refused@example.com"], "failed"),
    ],
)
async def test_every_interface_reports_the_same_about_a_mail_to_suppressed_addresses(
    post_office: PostOffice, to: list[str], status: str
) -> None:
    post_office.server.script("refused@example.com", Step("rcpt", "550 5.7.1 not from you"))
    command = mail(to=to, send_at=datetime.now(UTC) + timedelta(seconds=0.3))
    await post_office.accept(command)
    await suppress(post_office, GONE, "gone2@example.com")
    async with post_office.delivering():
        await post_office.reaches(command, status)
    assert await reported(post_office, command) == {status}


async def test_a_mail_that_is_suppressed_when_it_is_stored_is_announced_and_ends(
    post_office: PostOffice,
) -> None:
    await suppress(post_office, GONE)
    command = mail(to=[GONE])
    settings = load(EmailSettings, {"RABBITMQ_URL": "amqp://x/", "POSTGRES_DSN": "postgresql://x/emailer"})
    handler = consumers.handlers(settings, committed=lambda: None)[SendEmail]
    assert isinstance(handler, InTransaction)
    async with post_office.postgres.transaction() as connection:
        await handler.function(connection, [Delivery(command, new_id(), 1, OWNER, {})])
    assert await reported(post_office, command) == {"suppressed"}
    await removal.remove(post_office.postgres, Retention())
    async with post_office.postgres.connection() as connection:
        assert await connection.fetchval("SELECT ended_at FROM emails") is not None


async def test_a_suppressed_mail_keeps_its_files_and_is_sent_once_its_address_is_lifted(
    post_office: PostOffice,
) -> None:
    await suppress(post_office, GONE)
    command = mail(to=[GONE], attachments=[{"filename": "a.txt", "content": "aGVsbG8="}])
    await post_office.accept(command)
    await removal.remove(post_office.postgres, Retention())
    await post_office.suppressions.lift_matching(
        LiftSuppressions(owner_id=OWNER, wanted=SuppressionFilter()), SOON
    )
    request = RetryEmails(owner_id=OWNER, wanted=EmailFilter(status=["suppressed"]))
    async with post_office.postgres.connection() as connection:
        done = await choosing.decide(connection, request, choosing.RETRY, life_s=3600)
    assert (done.matched, done.changed) == (1, 1)
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
    (received,) = post_office.server.received
    assert [part.get_filename() for part in received.message.iter_attachments()] == ["a.txt"]


async def test_a_cancelled_mail_one_of_whose_addresses_is_suppressed_is_cancelled(
    post_office: PostOffice,
) -> None:
    await suppress(post_office, GONE)
    command = mail(to=[GONE, READER], send_at=LATER)
    await post_office.accept(command)
    assert (await post_office.read(command)).status == "queued"
    async with post_office.postgres.connection() as connection:
        request = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=[command.email_id]))
        await choosing.decide(connection, request, choosing.CANCEL, life_s=60)
    assert await reported(post_office, command) == {"cancelled"}


async def test_mails_that_the_previous_release_recorded_as_failed_are_corrected(
    post_office: PostOffice,
) -> None:
    found = [["suppressed"], ["suppressed", "expired"], ["cancelled", "suppressed"], ["failed", "suppressed"]]
    commands = [mail(to=[f"r{number}@example.com" for number in range(len(each))]) for each in found]
    await post_office.accept(*commands)
    async with post_office.postgres.transaction() as connection:
        for command, each in zip(commands, found, strict=True):
            await connection.execute(
                "UPDATE recipients SET status = ($2::text[])[position + 1], due_at = NULL, ready = false"
                " WHERE email_id = $1",
                *(command.email_id, each),
            )
        await connection.execute("UPDATE emails SET status = 'failed', ended_at = now() - interval '1 day'")
        migration = next(one for one in migrations.collect("emailer") if one.name.startswith("0014"))
        written_down = migration.sql[migration.sql.index("INSERT") : migration.sql.index("CREATE INDEX")]
        await connection.execute(written_down)
    await removal.remove(post_office.postgres, Retention())
    async with post_office.postgres.connection() as connection:
        rows = await connection.fetch("SELECT status, ended_at < now() - interval '1 h' AS kept FROM emails")
        assert await connection.fetchval("SELECT count(*) FROM emails_to_sum_up") == 0
    assert sorted(row["status"] for row in rows) == sorted(states.summed_up(each) for each in found)  # type: ignore[arg-type]
    assert all(row["kept"] for row in rows)
