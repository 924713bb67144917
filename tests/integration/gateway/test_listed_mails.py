"""The list of mails: those that wait at the gateway, are on their way, or are with email, each once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import Overloaded
from chassis.paging import page_of
from contracts.emails import STORED_STATUSES, CountEmails, EmailCounts, EmailLine, Emails, ListEmails
from contracts.uploads import OpenedUpload, OpenParcel
from gateway.emails import repository
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

FILE = [{"filename": "note.txt", "content": "SGVsbG8="}]
MAIL = {"to": ["Ann <ann@example.com>"], "subject": "Look", "text": "at this", "attachments": FILE}


class Mails:
    """The mails that email has: as many as the test says, and in which state."""

    def __init__(self) -> None:
        self.lines: dict[UUID, EmailLine] = {}
        self.asked: list[ListEmails] = []

    def store(self, email_id: UUID, status: Any = "queued") -> None:
        at = datetime.now(UTC)
        self.lines[email_id] = EmailLine(
            id=email_id,
            status=status,
            sender="a@example.com",
            subject="stored",
            tags=[],
            accepted_at=at,
            expires_at=at,
            recipient_count=1,
        )

    async def list(self, question: ListEmails, _: Deadline) -> Emails:
        self.asked.append(question)
        wanted, before = question.wanted, question.before
        found = [
            line
            for key, line in sorted(self.lines.items(), reverse=True)
            if line.status in (wanted.status or STORED_STATUSES)
            and (before is None or key < before)
            and (wanted.ids is None or key in wanted.ids)
        ]
        page, following = page_of(found, question.limit, lambda line: line.id)
        return Emails(data=page, next_cursor=following)

    async def count(self, _: CountEmails, __: Deadline) -> EmailCounts:
        return EmailCounts(counts=Counter(line.status for line in self.lines.values()))


async def refuse(_: OpenParcel, __: Deadline) -> OpenedUpload:
    raise Overloaded("not yet")


@dataclasses.dataclass
class MailSite:
    """A gateway that keeps attachments, and what email says it has."""

    listener: RunningGateway
    mails: Mails

    async def keep(self, **fields: Any) -> UUID:
        """Let a mail wait at the gateway."""
        answer = await self.listener.api.post("/v1/emails", json=MAIL | fields)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    async def hand_over(self, email_id: UUID) -> None:
        """Put a waiting mail on its way, as if email had taken its attachments; it does not arrive."""
        find = "SELECT parcel_id FROM waiting_parcel_messages WHERE message_id = $1"
        async with self.listener.database.acquire() as connection, connection.transaction():
            assert await repository.release(connection, await connection.fetchval(find, email_id))

    async def page(self, **query: Any) -> dict[str, Any]:
        answer = await self.listener.api.get("/v1/emails", params=query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    async def ids(self, **query: Any) -> list[UUID]:
        return [UUID(line["id"]) for line in (await self.page(**query))["data"]]


@pytest.fixture
async def site(house: House) -> MailSite:
    listener, mails = await house.open(email_url="http://127.0.0.1:1"), Mails()
    await house.double("email", {OpenParcel: refuse, ListEmails: mails.list, CountEmails: mails.count})
    return MailSite(listener, mails)


async def test_a_mail_that_waits_is_listed_with_what_is_known_of_it_and_matches_the_filters(
    site: MailSite,
) -> None:
    plain = await site.keep()
    full = await site.keep(
        **{"from": "Bob <bob@example.com>", "cc": ["cid@EXAMPLE.com", "ann@example.com"], "tags": ["x"]},
        send_at="2026-12-24T08:00:00Z",
        expires_at="2026-12-25T08:00:00Z",
    )
    site.mails.store(stored := new_id(), "delivered")
    newest, waiting, oldest = (await site.page())["data"]
    assert [UUID(line["id"]) for line in (newest, waiting, oldest)] == [stored, full, plain]
    assert waiting | {"id": "", "accepted_at": ""} == {
        "id": "",
        "status": "queued",
        "from": "Bob <bob@example.com>",
        "subject": "Look",
        "tags": ["x"],
        "accepted_at": "",
        "send_at": "2026-12-24T08:00:00Z",
        "expires_at": "2026-12-25T08:00:00Z",
        "recipient_count": 2,
        "waiting": True,
    }
    assert (oldest["from"], oldest["expires_at"], newest["waiting"]) == (None, None, False)
    for query, found in {
        "tag=x": [full],
        "to=cid@example.com": [full],
        "status=queued,failed&to=ann@example.com": [full, plain],
        "status=failed": [],
        "created_before=2026-01-01T00:00:00Z": [],
        "waiting=true": [full, plain],
    }.items():
        own = await site.ids(**dict(each.split("=") for each in query.split("&")))
        assert [key for key in own if key != stored] == found, query
    assert await site.ids(waiting="false") == [stored]
    async with site.listener.client(await site.listener.new_key("emails:read")) as other:
        answer = await other.get("/v1/emails", params={"waiting": "true"})
        assert answer.json() == {"data": [], "next_cursor": None}


async def test_pages_have_each_mail_once_whatever_leaves_and_arrives_between_them(site: MailSite) -> None:
    ids: list[UUID] = []
    for number in range(12):
        if number % 3:
            ids.append(await site.keep())
        else:
            site.mails.store(new_id(), "delivered")
    waiting = set(ids)
    everything = sorted(waiting | site.mails.lines.keys(), reverse=True)
    for size in (1, 2, 3, 5):
        seen: list[UUID] = []
        cursor: dict[str, str] = {}
        while True:
            page = await site.page(limit=size, **cursor)
            seen += [UUID(line["id"]) for line in page["data"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
            # One that the walk has yet to meet leaves; the one that left before has arrived.
            if waiting:
                list(map(site.mails.store, set(ids) - waiting))
                leaving = max(waiting)
                await site.hand_over(leaving)
                waiting.remove(leaving)
        assert seen == everything, f"pages of {size}"


async def test_a_mail_on_its_way_is_listed_and_once_email_has_it_only_in_the_state_that_email_says(
    site: MailSite,
) -> None:
    on_its_way, arrived, done = [await site.keep() for _ in range(3)]
    for each in (on_its_way, arrived, done):
        await site.hand_over(each)
    site.mails.store(arrived)
    # Its end has not been reported to the gateway yet.
    site.mails.store(done, "delivered")
    assert await site.ids() == [done, arrived, on_its_way]
    assert await site.ids(status="queued") == [arrived, on_its_way]
    assert await site.ids(status="delivered") == [done]
    assert await site.ids(status="queued,failed", limit=1) == []
    assert [line["waiting"] for line in (await site.page())["data"]] == [False] * 3
    assert await site.ids(waiting="true") == []


async def test_mails_that_ended_at_the_gateway_stay_in_the_list_as_cancelled(site: MailSite) -> None:
    gone, other = await site.keep(), await site.keep()
    answer = await site.listener.api.delete(f"/v1/emails/{gone}")
    assert answer.json()["status"] == "cancelled", answer.text
    assert await site.ids(status="cancelled") == [gone]
    assert await site.ids(status="queued") == [other]
    assert await site.ids() == [other, gone]
    assert await site.ids(waiting="true") == [other]


async def test_the_overview_counts_each_mail_where_it_is(site: MailSite) -> None:
    async def emails() -> Any:
        return (await site.listener.api.get("/v1/overview")).json()["emails"]

    waits, on_its_way, gone = [await site.keep() for _ in range(3)]
    async with site.listener.client(await site.listener.new_key("emails:send", "emails:read")) as other:
        assert (await other.post("/v1/emails", json=MAIL)).status_code == 202
    assert await emails() == {"queued": 3}
    site.mails.store(new_id(), "delivered")
    await site.hand_over(on_its_way)
    site.mails.store(on_its_way)
    assert (await site.listener.api.delete(f"/v1/emails/{gone}")).status_code == 200
    assert await emails() == {"queued": 2, "delivered": 1, "cancelled": 1}
    assert (await site.listener.api.delete(f"/v1/emails/{waits}")).status_code == 200
    assert await emails() == {"queued": 1, "delivered": 1, "cancelled": 2}


async def test_without_email_the_list_fails_but_that_of_waiting_mails_does_not_and_they_can_be_cancelled(
    house: House,
) -> None:
    gate = await house.gate(*house.broker_place)
    listener = await house.open(rabbitmq_url=house.broker_url_by(gate), email_url="http://127.0.0.1:1")
    await gate.shut()
    site = MailSite(listener, Mails())
    ids = [await site.keep() for _ in range(2)]
    assert_problem(await listener.api.get("/v1/emails"), 503, "broker-unavailable")
    assert await site.ids(waiting="true", limit=1) == ids[1:]
    retried = await listener.api.post("/v1/emails/retry", params={"waiting": "true"})
    assert (retried.status_code, retried.json()["changed"]) == (200, 0)
    cancelled = await listener.api.post("/v1/emails/cancel", params={"waiting": "true"})
    assert (cancelled.status_code, cancelled.json()["changed"]) == (200, 2), cancelled.text
    assert await site.ids(waiting="true") == []
