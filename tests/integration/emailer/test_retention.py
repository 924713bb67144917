"""Ended mails are removed in time, others are never touched, and counts always cost the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from chassis import queries
from chassis.broker.envelope import new_id
from contracts.emails import CancelEmails, EmailFilter, ResendEmail, RetryEmails
from emailer.mails import choosing, repository
from emailer.retention import removal
from emailer.retention.removal import Retention
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail
from support.doubles.smtp import Step

_SQL = queries.of("emailer")

FILE = {"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}
LATER = datetime.now(UTC) + timedelta(days=1)
# Of 8 KiB each, for a step of a thousand mails beside a hundred thousand others.
MOST_BUFFERS = 30_000


async def counts(post_office: PostOffice, owner_id: str = OWNER) -> dict[str, int]:
    async with post_office.postgres.connection() as connection:
        return (await repository.count(connection, owner_id=owner_id)).counts


async def fold(post_office: PostOffice) -> None:
    async with post_office.postgres.connection() as connection:
        await connection.fetchval(_SQL["fold_counts"], 1000)


async def age(post_office: PostOffice, days: float) -> None:
    """Move the end of every ended mail so many days into the past."""
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE emails SET ended_at = ended_at - $1::interval", timedelta(days=days))


NOTHING = {"attachments": 0, "content": 0, "record": 0, "suppression": 0, "failure": 0, "template": 0}


async def rows(post_office: PostOffice, table: str) -> int:
    async with post_office.postgres.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_counts_follow_every_change_before_and_after_they_are_added_up(post_office: PostOffice) -> None:
    post_office.server.script("refused@example.com", Step("rcpt", "550 5.1.1 no such user"))
    taken, refused, waiting = mail(), mail(to=["refused@example.com"]), mail(send_at=LATER)
    await post_office.accept(taken, refused, waiting, mail(owner_id="other", send_at=LATER))
    assert await counts(post_office) == {"queued": 3}
    await fold(post_office)
    async with post_office.delivering():
        await post_office.reaches(taken, "delivered")
        await post_office.reaches(refused, "failed")
    expected = {"queued": 1, "delivered": 1, "failed": 1}
    assert await counts(post_office) == expected
    await fold(post_office)
    assert await rows(post_office, "email_count_changes") == 0
    assert await counts(post_office) == expected
    async with post_office.postgres.connection() as connection:
        cancelling = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=[waiting.email_id]))
        await choosing.decide(connection, cancelling, choosing.CANCEL, life_s=60)
    assert await counts(post_office) == {"cancelled": 1, "delivered": 1, "failed": 1}
    await age(post_office, 91)
    for _ in range(2):
        await removal.remove(post_office.postgres, Retention())
    assert await counts(post_office) == {}
    assert await counts(post_office, "other") == {"queued": 1}


async def test_attachments_are_removed_with_the_delivery_and_stay_where_it_failed(
    post_office: PostOffice,
) -> None:
    post_office.server.script("refused@example.com", Step("rcpt", "550 5.7.1 not from you"))
    taken = mail(attachments=[FILE])
    refused = mail(to=["refused@example.com"], attachments=[FILE])
    waiting = mail(send_at=LATER, attachments=[FILE])
    await post_office.accept(taken, refused, waiting)
    async with post_office.delivering():
        await post_office.reaches(taken, "delivered")
        await post_office.reaches(refused, "failed")
        removed = await removal.remove(post_office.postgres, Retention())
        assert removed == NOTHING | {"attachments": 1}
        assert not (await post_office.read(taken)).content_available
        assert (await post_office.read(refused)).content_available
        retrying = RetryEmails(owner_id=OWNER, wanted=EmailFilter(ids=[refused.email_id]))
        async with post_office.postgres.connection() as connection:
            await choosing.decide(connection, retrying, choosing.RETRY, life_s=60)
        await post_office.reaches(refused, "delivered")
    attached = [list(received.message.iter_attachments()) for received in post_office.server.received]
    assert [part.get_content() for (part,) in attached] == ["hello", "hello"]
    assert await rows(post_office, "attachments") == 2


@pytest.mark.parametrize(("files", "days"), [([FILE], 0), ([], 8)], ids=["attachments", "content"])
async def test_what_is_to_be_sent_again_stays_until_it_is_copied(
    post_office: PostOffice, files: list[dict[str, str]], days: float
) -> None:
    command, other = mail(attachments=files), mail(attachments=files)
    await post_office.accept(command, other)
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
        await post_office.reaches(other, "delivered")
    await age(post_office, days)
    async with post_office.postgres.connection() as connection:
        await choosing.keep_for_copy(connection, command.email_id, owner_id=OWNER)
        await choosing.keep_for_copy(connection, other.email_id, owner_id="somebody else")
    removed = await removal.remove(post_office.postgres, Retention())
    assert (removed["attachments"], removed["content"]) == ((1, 0) if files else (0, 1))
    assert (await post_office.read(command)).content_available
    again = ResendEmail(
        email_id=new_id(), source_id=command.email_id, owner_id=OWNER, accepted_at=datetime.now(UTC)
    )
    async with post_office.postgres.transaction() as connection:
        assert await choosing.copy(connection, again, life_s=60, trace=(None, None))
        await connection.execute("UPDATE emails SET kept_until = kept_until - interval '1 day'")
    removed = await removal.remove(post_office.postgres, Retention())
    assert (removed["attachments"], removed["content"]) == ((1, 0) if files else (0, 1))
    assert not (await post_office.read(command)).content_available


async def test_content_and_record_are_removed_in_their_time_and_unsent_mails_stay(
    post_office: PostOffice,
) -> None:
    taken, waiting = mail(), mail(send_at=LATER, attachments=[FILE])
    await post_office.accept(taken, waiting)
    async with post_office.delivering():
        await post_office.reaches(taken, "delivered")
    assert await removal.remove(post_office.postgres, Retention()) == NOTHING
    await age(post_office, 8)
    assert (await removal.remove(post_office.postgres, Retention()))["content"] == 1
    email = await post_office.read(taken)
    assert (email.status, email.content_available) == ("delivered", False)
    assert email.recipients[0].attempts[0].smtp_code == 250
    async with post_office.postgres.connection() as connection:
        left = await connection.fetchrow(
            "SELECT text_body, html_body, letter::text AS letter FROM emails WHERE id = $1", taken.email_id
        )
        assert left is not None
        assert tuple(left) == (None, None, "{}")
        await connection.execute("UPDATE emails SET accepted_at = now() - interval '400 days'")
    await age(post_office, 90)
    assert (await removal.remove(post_office.postgres, Retention()))["record"] == 1
    assert await rows(post_office, "emails") == await rows(post_office, "recipients") == 1
    assert (await rows(post_office, "attempts"), await rows(post_office, "attachments")) == (0, 1)
    assert (await post_office.read(waiting)).content_available


async def test_a_mail_that_the_previous_release_ended_begins_its_retention_now(
    post_office: PostOffice,
) -> None:
    taken = mail()
    await post_office.accept(taken)
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE emails SET status = 'delivered'")
        await removal.remove(post_office.postgres, Retention())
        ended_at = await connection.fetchval("SELECT ended_at FROM emails")
    assert ended_at > datetime.now(UTC) - timedelta(minutes=1)


async def fill(dsn: str, *, queued: int, ended: int) -> None:
    """Store mails of owner `flood`: so many that wait, and so many whose content should be gone."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        for status, count, end in (
            ("queued", queued, "NULL"),
            ("delivered", ended, "now() - interval '8 days'"),
        ):
            await connection.execute(
                f"""
                INSERT INTO emails (
                    id, owner_id, status, sender, subject, letter, text_body, attachment_count,
                    recipient_count, tags, metadata, accepted_at, expires_at, ended_at
                )
                SELECT gen_random_uuid(), 'flood', '{status}', 'a@b.de', '', '{{"x":1}}', repeat('x', 300), 0,
                    1, '[]', '{{}}', now(), now(), {end}
                FROM generate_series(1, $1)
                """,
                count,
                timeout=300,
            )
        await connection.execute(
            """
            INSERT INTO recipients (email_id, position, kind, address, status, size_bytes)
            SELECT id, 0, 'to', 'r@example.com', 'delivered', 100 FROM emails WHERE ended_at IS NOT NULL
            """
        )
        await connection.execute(
            """
            INSERT INTO attempts (email_id, position, at, host, outcome, smtp_reply, tls)
            SELECT email_id, 0, now(), 'relay', 'delivered', 'ok', true FROM recipients
            """
        )
        await connection.execute("INSERT INTO email_counts VALUES ('flood', 'queued', $1)", queued)
        await connection.execute("VACUUM ANALYZE emails", timeout=300)
    finally:
        await connection.close()


async def buffers(post_office: PostOffice, query: str, *values: Any) -> int:
    async with post_office.postgres.connection() as connection:
        statement = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {queries.of('emailer')[query]}"
        plan = json.loads(await connection.fetchval(statement, *values))[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("queued", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_counts_and_removal_cost_the_same_however_many_mails_wait(
    post_office: PostOffice, queued: int
) -> None:
    await fill(post_office.dsn, queued=queued, ended=5_000)
    assert await buffers(post_office, "count_emails", "flood") < 50
    assert (await counts(post_office, "flood"))["queued"] == queued
    usual = Retention()
    step = await buffers(post_office, "remove_content", 1000, *usual.content)
    assert step < MOST_BUFFERS
    # The entries of those that were just changed are passed by once.
    assert await buffers(post_office, "removal_delay", *usual.content) < 200
    nothing = (1000, *usual.record, *usual.content)
    for idle in (("note_ends", 1000), ("remove_attachments", 1000), ("remove_emails", *nothing)):
        assert await buffers(post_office, *idle) < 200
    removed = await removal.remove(post_office.postgres, Retention(7, 8))
    assert removed == NOTHING | {"content": 4_000, "record": 5_000}
    print(f"beside {queued:,} queued mails: {step} buffers a step")
    assert await rows(post_office, "emails") == queued
    assert await rows(post_office, "attempts") == 0


async def test_a_count_includes_only_mails_of_its_owner(post_office: PostOffice) -> None:
    await post_office.accept(*(mail(owner_id=f"owner-{number}") for number in range(30)))
    assert [await counts(post_office, f"owner-{number}") for number in range(30)] == [{"queued": 1}] * 30
    async with post_office.delivering(DispatcherTerms(connections=1)):
        last = mail()
        await post_office.accept(last)
        await post_office.reaches(last, "delivered")
