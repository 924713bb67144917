"""Lists and bulk actions of an owner with many mails read a bounded part of them, whatever the filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chassis import queries
from chassis.postgres import Connection
from contracts.emails import CancelEmails, EmailFilter, EmailsChanged, ListEmails, RetryEmails
from emailer.mails import choosing
from support.doubles.post_office import OWNER, PostOffice, mail
from support.explained import Explained

_SQL = queries.of("emailer")

ROWS = 20_000
EXAMINED = 100
LATER = datetime.now(UTC) + timedelta(days=1)
# Each filter, and the buffers that one statement may read: three for the recipients of each mail examined,
# and as many for the attempts at them, where the tags or the times decide nothing. The row of each mail is
# read, too, where an old snapshot kept VACUUM from marking its page as visible to all.
FILTERS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 7 * EXAMINED),
    "tag": ({"tag": "invoice"}, 120 + EXAMINED),
    "recipient": ({"to": "nobody@example.com"}, 120 + 4 * EXAMINED),
    "created_after": ({"created_after": LATER}, 120 + EXAMINED),
    "created_before": ({"created_before": LATER - timedelta(days=900)}, 120 + EXAMINED),
    "tag of one status": ({"tag": "invoice", "status": ["delivered"]}, 120 + EXAMINED),
}


@pytest.fixture
async def crowded(post_office: PostOffice, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """Store mails that are delivered, or failed without a chance of another attempt; nobody's filter fits."""
    monkeypatch.setattr(choosing, "MOST_EXAMINED", EXAMINED)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO emails (id, owner_id, status, sender, subject, letter, attachment_count,"
            " recipient_count, tags, metadata, accepted_at, expires_at)"
            " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid, $1,"
            " CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'delivered' END, '', repeat('s', 500), '{\"a\": 1}',"
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
            await connection.execute(f"VACUUM ANALYZE {table}")
        yield connection
        await connection.execute("RESET ALL")


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_lists_and_bulk_actions_read_a_bounded_part_whatever_the_filter(
    crowded: Connection, plans: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowded.execute(f"SET plan_cache_mode = {plans}")
    explained: Any = Explained(crowded)
    for before in (None, UUID(int=(ROWS - 1000) << 96)):
        for name, (fields, most) in FILTERS.items():
            explained.read.clear()
            wanted = EmailFilter.model_validate(fields)
            request = ListEmails(owner_id=OWNER, wanted=wanted, before=before)
            found = await choosing.list_emails(explained, request)
            assert bool(found.data) == (name == "nothing"), name
            assert found.next_cursor is not None, name
            change = RetryEmails(owner_id=OWNER, wanted=wanted, before=before)
            ids, _ = await choosing.find_changeable(explained, change, choosing.RETRY)
            assert ids == []
            assert set(explained.read) >= {"list_emails", "find_changeable", "count_matching"}
            assert max(explained.read.values()) < most, (name, before, explained.read)


async def test_a_few_mails_that_can_be_changed_are_found_by_one_call_among_very_many_others(
    crowded: Connection,
) -> None:
    oldest = [UUID(int=number << 96) for number in (1, 2)]
    for table, key in (("emails", "id"), ("recipients", "email_id")):
        await crowded.execute(f"UPDATE {table} SET status = 'held' WHERE {key} = ANY($1)", oldest)
    request = CancelEmails(owner_id=OWNER, wanted=EmailFilter(tag="news"))
    found = await choosing.decide(crowded, request, choosing.CANCEL, life_s=1)
    assert found == EmailsChanged(matched=EXAMINED, changed=2, complete=True, exact=False)


async def test_mails_that_are_named_are_found_one_by_one(crowded: Connection) -> None:
    await crowded.execute("SET plan_cache_mode = force_generic_plan")
    explained: Any = Explained(crowded)
    ids = [UUID(int=number << 96) for number in (1, ROWS)]
    request = ListEmails(owner_id=OWNER, wanted=EmailFilter(ids=ids))
    found = await choosing.list_emails(explained, request)
    assert [line.id for line in found.data] == ids[::-1]
    change = CancelEmails(owner_id=OWNER, wanted=EmailFilter(ids=ids))
    assert await choosing.find_changeable(explained, change, choosing.CANCEL) == (
        [],
        EmailsChanged(matched=2, changed=0, complete=True),
    )
    assert max(explained.read.values()) < 150, explained.read


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


class Interrupted:
    """A connection beside which another mail is accepted as soon as it knows what to examine."""

    def __init__(self, connection: Connection, post_office: PostOffice) -> None:
        self._connection = connection
        self._post_office = post_office

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetch(self, statement: str, *arguments: object) -> Any:
        rows = await self._connection.fetch(statement, *arguments)
        if statement == _SQL["find_examined"]:
            await self._post_office.accept(mail())
        return rows


async def test_a_mail_that_is_stored_meanwhile_pushes_no_other_out_of_the_page(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MOST_EXAMINED", 3)
    commands = [mail(tags=["rare"] if number == 2 else []) for number in range(5)]
    await post_office.accept(*commands)
    wanted = EmailFilter(tag="rare")
    async with post_office.postgres.connection() as connection:
        interrupted: Any = Interrupted(connection, post_office)
        page = await choosing.list_emails(interrupted, ListEmails(owner_id=OWNER, wanted=wanted))
        assert [line.id for line in page.data] == [commands[2].email_id]
        assert page.next_cursor == commands[2].email_id
        cancelling = CancelEmails(owner_id=OWNER, wanted=wanted, before=commands[3].email_id)
        ids, _ = await choosing.find_changeable(interrupted, cancelling, choosing.CANCEL)
    assert ids == [commands[2].email_id]


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
        async with post_office.postgres.connection() as connection:
            steps.append(await choosing.decide(connection, request, choosing.CANCEL, life_s=1))
        before = steps[-1].next_cursor
    assert (sum(step.matched for step in steps), sum(step.changed for step in steps)) == (4, 3)
    assert len(steps) >= 3
    states = {(await post_office.read(command)).status for command in commands}
    assert ("cancelled" in states) != dry_run
