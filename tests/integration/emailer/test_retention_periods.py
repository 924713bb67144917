"""Each owner has days of its own for content and records, within the operator's bounds, or the operator's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from chassis import queries
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput
from contracts.emails import SendEmail
from contracts.retention import GetRetention, MailRetention, SetRetention
from emailer.errors import RetentionChangedMeanwhile
from emailer.retention import removal
from emailer.retention.answers import RetentionAnswers
from emailer.retention.removal import Retention
from support.doubles.post_office import PostOffice, mail
from support.explained import buffers

_SQL = queries.of("emailer")

# A look of a pass that finds nothing to remove.
MOST_BUFFERS_OF_A_LOOK = 200
USUAL = Retention(content_days=7, record_days=90, most_content_days=30, most_record_days=100)


async def choose(post_office: PostOffice, owner_id: str, **days: Any) -> MailRetention:
    answers = RetentionAnswers(post_office.postgres, USUAL)
    return await answers.set(SetRetention(owner_id=owner_id, **days), Deadline.after(5))


async def ended(post_office: PostOffice, owner_id: str, *, days: float) -> SendEmail:
    """Return a mail of an owner that was refused so many days ago."""
    command = mail(owner_id=owner_id)
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE recipients SET status = 'failed', due_at = NULL, ready = false WHERE email_id = $1",
            command.email_id,
        )
        await connection.execute(
            "UPDATE emails SET status = 'failed', ended_at = now() - $2::interval WHERE id = $1",
            command.email_id,
            timedelta(days=days),
        )
    return command


async def left(post_office: PostOffice) -> dict[tuple[str, int], bool]:
    """Remove what is due; return for each mail that is still there (by owner and age) if it has content."""
    await removal.remove(post_office.postgres, USUAL)
    async with post_office.postgres.connection() as connection:
        rows = await connection.fetch(
            "SELECT owner_id, round(extract(epoch FROM now() - ended_at) / 86400)::int AS days,"
            " stripped < 2 AS has_content FROM emails WHERE ended_at IS NOT NULL"
        )
    return {(row["owner_id"], row["days"]): row["has_content"] for row in rows}


async def test_each_owner_has_its_own_days_and_a_lower_period_takes_effect_at_the_next_pass(
    post_office: PostOffice,
) -> None:
    await choose(post_office, "brief", content_days=1, record_days=3)
    await choose(post_office, "patient", content_days=20, record_days=95)
    for owner_id in ("brief", "patient", "usual"):
        for days in (2, 8, 93, 96):
            await ended(post_office, owner_id, days=days)
    assert await left(post_office) == {
        ("brief", 2): False,
        ("patient", 2): True,
        ("patient", 8): True,
        ("patient", 93): False,
        ("usual", 2): True,
        ("usual", 8): False,
    }
    await choose(post_office, "patient", content_days=1, record_days=8.5)
    assert await left(post_office) == {
        ("brief", 2): False,
        ("patient", 2): False,
        ("patient", 8): False,
        ("usual", 2): True,
        ("usual", 8): False,
    }
    # Null is the operator's again: what is left of the mails stays for as long as everybody's.
    await choose(post_office, "brief")
    await ended(post_office, "brief", days=6)
    assert (await left(post_office)).items() >= {("brief", 2): False, ("brief", 6): True}.items()


async def test_a_mail_that_is_not_sent_is_kept_whatever_its_owner_chooses(post_office: PostOffice) -> None:
    await choose(post_office, "brief", content_days=0, record_days=0)
    for status in ("queued", "deferred", "held", "sending"):
        command = mail(owner_id="brief", send_at=datetime.now(UTC) + timedelta(days=1))
        await post_office.accept(command)
        async with post_office.postgres.connection() as connection:
            await connection.execute(
                "UPDATE emails SET status = $2, accepted_at = now() - interval '400 days' WHERE id = $1",
                command.email_id,
                status,
            )
    await ended(post_office, "brief", days=0.01)
    assert await left(post_office) == {}
    async with post_office.postgres.connection() as connection:
        kept = await connection.fetch("SELECT status, text_body FROM emails ORDER BY status")
    assert [row["status"] for row in kept] == ["deferred", "held", "queued", "sending"]
    assert all(row["text_body"] for row in kept)


async def test_days_are_within_the_bounds_of_the_operator_also_when_he_lowers_them(
    post_office: PostOffice,
) -> None:
    for days, pointer in (
        ({"content_days": 30.5}, "/content_days"),
        ({"record_days": 101}, "/record_days"),
        ({"content_days": 8, "record_days": 7.9}, "/record_days"),
        # The operator's seven days for content.
        ({"record_days": 6}, "/record_days"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await choose(post_office, "eager", **days)
        assert [error.pointer for error in refused.value.errors] == [pointer]
    chosen = await choose(post_office, "eager", content_days=30)
    assert (chosen.content_days, chosen.record_days, chosen.chosen_record_days) == (30, 90, None)
    stricter = Retention(content_days=7, record_days=20, most_content_days=10, most_record_days=5)
    shown = await RetentionAnswers(post_office.postgres, stricter).get(
        GetRetention(owner_id="eager"), Deadline.after(5)
    )
    assert (shown.content_days, shown.chosen_content_days, shown.record_days) == (10, 30, 20)
    await ended(post_office, "eager", days=11)
    assert (await removal.remove(post_office.postgres, stricter))["content"] == 1


async def test_of_two_changes_of_the_same_version_the_second_is_refused(post_office: PostOffice) -> None:
    first = await choose(post_office, "two-hands", content_days=1, version=0)
    assert (first.version, first.content_days) == (1, 1)
    with pytest.raises(RetentionChangedMeanwhile):
        await choose(post_office, "two-hands", content_days=2, version=0)
    assert (await choose(post_office, "two-hands", content_days=2, version=1)).version == 2
    assert (await choose(post_office, "two-hands", content_days=3)).version == 3


async def store_many(dsn: str, owner_id: str, count: int, *, days: float, stripped: int) -> None:
    """Store so many mails of an owner that ended so many days ago, with or without content."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            INSERT INTO emails (
                id, owner_id, status, sender, subject, letter, attachment_count, recipient_count, tags,
                metadata, accepted_at, expires_at, ended_at, stripped
            )
            SELECT gen_random_uuid(), $1, 'failed', 'a@b.de', '', '{}', 0, 1, '[]', '{}', now(), now(),
                now() - $3::interval - number * interval '1 ms', $4
            FROM generate_series(1, $2) AS number
            """,
            *(owner_id, count, timedelta(days=days), stripped),
        )
        await connection.execute("VACUUM ANALYZE emails")
    finally:
        await connection.close()


async def test_a_pass_costs_the_same_however_many_mails_are_kept_for_longer(post_office: PostOffice) -> None:
    await choose(post_office, "patient", content_days=20, record_days=95)
    await store_many(post_office.dsn, "patient", 20_000, days=10, stripped=0)
    await store_many(post_office.dsn, "patient", 20_000, days=92, stripped=2)
    await ended(post_office, "usual", days=10)
    await ended(post_office, "zero", days=10)
    async with post_office.postgres.connection() as connection:
        for statement, values in (
            ("remove_content", (1000, *USUAL.content)),
            ("remove_emails", (1000, *USUAL.record, *USUAL.content)),
            ("removal_delay", USUAL.content),
        ):
            read = await buffers(connection, statement, *values, package="emailer")
            assert read < MOST_BUFFERS_OF_A_LOOK, statement
        # Of the mails that ended ten days ago, two should have lost their content three days ago.
        assert await connection.fetchval(_SQL["removal_delay"], *USUAL.content) == pytest.approx(3, abs=0.01)
    await removal.remove(post_office.postgres, USUAL)
    async with post_office.postgres.connection() as connection:
        # And now the next ones have ten days left.
        assert await connection.fetchval(_SQL["removal_delay"], *USUAL.content) == pytest.approx(
            -10, abs=0.01
        )
        assert await connection.fetchval("SELECT count(*) FROM emails WHERE owner_id = 'patient'") == 40_000
