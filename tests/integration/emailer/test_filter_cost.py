"""Lists and bulk actions of an owner with many mails read a bounded part of them, whatever the filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chassis.postgres import Connection
from contracts.emails import STORED_STATUSES, CancelEmails, EmailFilter, EmailsChanged, ListEmails
from emailer.sending import choosing
from support.doubles.post_office import OWNER, PostOffice, mail
from support.explained import buffers

ROWS = 20_000
EXAMINED = 100
# Three for the recipients of each mail that is examined, and three for their attempts.
MOST_BUFFERS = 7 * EXAMINED
LATER = datetime.now(UTC) + timedelta(days=1)
NARROW = {
    "nothing": {},
    "tag": {"tag": "invoice"},
    "recipient": {"to": "nobody@example.com"},
    "created_after": {"created_after": LATER},
    "created_before": {"created_before": LATER - timedelta(days=900)},
    "tag of one status": {"tag": "invoice", "status": ["delivered"]},
}


@pytest.fixture
async def crowded(post_office: PostOffice) -> AsyncIterator[Connection]:
    """Store mails that are delivered, or failed without a chance of another attempt; nobody's filter fits."""
    async with post_office.postgres.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO emails (id, owner_id, status, sender, subject, letter, attachment_count,"
            " recipient_count, tags, metadata, accepted_at, expires_at)"
            " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid, $1,"
            " CASE WHEN n % 2 = 0 THEN 'delivered' ELSE 'failed' END, '', repeat('s', 500), '{\"a\": 1}',"
            " 0, 1, '[\"news\"]', '{}', now(), now() FROM generate_series(1, $2::int) AS n",
            OWNER,
            ROWS,
        )
        await connection.execute(
            "INSERT INTO recipients (email_id, position, kind, address, status, size_bytes)"
            " SELECT id, 0, 'to', repeat('a', 240) || '@example.com', status, 1 FROM emails"
        )
        await connection.execute(
            "INSERT INTO attempts (email_id, position, at, host, outcome, smtp_reply, tls)"
            " SELECT id, 0, now(), '', 'failed', 'refused', false FROM emails WHERE status = 'failed'"
        )
        for table in ("emails", "recipients", "attempts"):
            await connection.execute(f"ANALYZE {table}")
        yield connection
        await transaction.rollback()


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_lists_and_bulk_actions_read_a_bounded_part_whatever_the_filter(
    crowded: Connection, plans: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MOST_EXAMINED", EXAMINED)
    await crowded.execute(f"SET LOCAL plan_cache_mode = {plans}")
    for before in (None, UUID(int=(ROWS - 100) << 96)):
        for name, fields in NARROW.items():
            wanted = EmailFilter.model_validate(fields)
            owner_id, statuses, *others = choosing.chosen(OWNER, wanted)
            found = await choosing.list_emails(
                crowded, ListEmails(owner_id=OWNER, wanted=wanted, before=before)
            )
            assert bool(found.data) == (name == "nothing"), name
            end = found.next_cursor
            assert end is not None, name
            chosen = (owner_id, statuses, *others, before, end)
            decision = choosing.RETRY
            retried = (decision.recipients, decision.skips_due, choosing.MOST_CHANGED + 1)
            for statement, arguments in (
                ("find_last_examined", (owner_id, statuses, before, EXAMINED)),
                ("list_emails", (*chosen, 51)),
                ("count_matching", chosen),
                ("find_changeable", (*chosen, *retried)),
            ):
                read = await buffers(crowded, statement, *arguments, package="emailer")
                assert read < MOST_BUFFERS, (name, statement, read)


async def test_mails_that_are_named_are_found_one_by_one(crowded: Connection) -> None:
    await crowded.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    ids = [UUID(int=number << 96) for number in (1, ROWS)]
    arguments = (OWNER, list(STORED_STATUSES), None, None, None, None, ids, None, 50)
    assert await buffers(crowded, "list_named_emails", *arguments, package="emailer") < 50
    request = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=ids[:1]))
    assert await choosing.decide(crowded, request, choosing.CANCEL, life_s=1) == EmailsChanged(
        matched=1, changed=0, complete=True
    )
    one = (None, None, None, None, ids[:1], UUID(int=ids[0].int + 1), ids[0])
    statuses = list(STORED_STATUSES)
    assert await buffers(crowded, "count_matching", OWNER, statuses, *one, package="emailer") < 50


async def test_pages_of_a_filter_that_matches_little_show_each_mail_once(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MOST_EXAMINED", 3)
    commands = [mail(tags=["rare"] if number in (0, 6, 7) else []) for number in range(10)]
    commands[8] = mail(to=["nobody"], tags=["rare"])
    await post_office.accept(*commands, mail(owner_id="somebody else", tags=["rare"]))
    for limit in (1, 2, 50):
        shown: list[UUID] = []
        before, pages = None, 0
        while pages == 0 or before is not None:
            request = ListEmails(owner_id=OWNER, wanted=EmailFilter(tag="rare"), before=before, limit=limit)
            async with post_office.postgres.connection() as connection:
                page = await choosing.list_emails(connection, request)
            shown += [line.id for line in page.data]
            before, pages = page.next_cursor, pages + 1
        assert shown == [commands[number].email_id for number in (8, 7, 6, 0)]
        assert pages >= 4


@pytest.mark.parametrize("dry_run", [True, False])
async def test_steps_of_a_bulk_action_count_each_mail_once(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    monkeypatch.setattr(choosing, "MOST_EXAMINED", 4)
    monkeypatch.setattr(choosing, "MOST_CHANGED", 2)
    tags = [["rare"] if number in (0, 6, 7, 8) else [] for number in range(10)]
    commands = [
        mail(tags=some, to=["nobody"] if number == 7 else ["a@example.com"])
        for number, some in enumerate(tags)
    ]
    await post_office.accept(*commands)
    steps: list[EmailsChanged] = []
    before = None
    while not steps or not steps[-1].complete:
        request = CancelEmails(owner_id=OWNER, wanted=EmailFilter(tag="rare"), dry_run=dry_run, before=before)
        async with post_office.postgres.transaction() as connection:
            steps.append(await choosing.decide(connection, request, choosing.CANCEL, life_s=1))
        before = steps[-1].next_cursor
    assert (sum(step.matched for step in steps), sum(step.changed for step in steps)) == (4, 3)
    assert len(steps) >= 3
    states = {(await post_office.read(command)).status for command in commands}
    assert ("cancelled" in states) != dry_run
