"""The state of an accepted mail, before the email service has stored it and afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts import emails
from contracts.message import Request
from contracts.topology import EMAIL
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)
ID = "018f0000-0000-7000-8000-000000000000"


async def test_accepted_work_is_queued_until_its_service_reports_its_state(
    listener: RunningGateway, house: House
) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "x"}
    id_ = (await listener.api.post("/v1/emails", json=mail)).json()["id"]
    known: dict[UUID, emails.Email] = {}

    async def get(request: emails.GetEmail, _: Deadline) -> emails.Email:
        if request.email_id not in known or request.owner_id != "1":
            raise NotFound("No such mail.")
        return known[request.email_id]

    await house.double(EMAIL, {emails.GetEmail: get})
    waiting = (await listener.api.get(f"/v1/emails/{id_}")).json()
    assert (waiting["status"], waiting["recipients"], waiting["detail_available"]) == ("queued", [], True)
    known[UUID(id_)] = emails.Email(
        id=UUID(id_),
        status="delivered",
        sender="a@example.com",
        subject="Hello",
        accepted_at=NOW,
        recipients=[],
    )
    found = (await listener.api.get(f"/v1/emails/{id_}")).json()
    assert (found["status"], found["from"]) == ("delivered", "a@example.com")
    assert "sender" not in found
    assert_problem(await listener.api.get(f"/v1/emails/{ID}"), 404, "not-found")


async def test_a_mail_that_was_accepted_and_is_not_stored_yet_is_not_said_to_be_unknown(
    listener: RunningGateway, house: House
) -> None:
    mail = {"to": ["ann@example.com"], "subject": "Hello", "text": "x"}
    id_ = (await listener.api.post("/v1/emails", json=mail)).json()["id"]

    async def has_none(*_: object) -> emails.Email:
        raise NotFound("No such mail.")

    async def changes_none(*_: object) -> emails.EmailsChanged:
        return emails.EmailsChanged(matched=0, changed=0, complete=True)

    answers: dict[type[Request], Any] = {
        emails.GetEmail: has_none,
        emails.GetRawEmail: has_none,
        emails.RescheduleEmail: has_none,
        emails.CancelEmails: changes_none,
    }
    await house.double(EMAIL, answers)
    later = {"send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    for id_asked, status, code in ((id_, 409, "conflict"), (str(ID), 404, "not-found")):
        path = f"/v1/emails/{id_asked}"
        for answer in (
            await listener.api.delete(path),
            await listener.api.patch(path, json=later),
            await listener.api.post(f"{path}/resend"),
            await listener.api.get(f"{path}/raw"),
        ):
            assert_problem(answer, status, code)
            assert ("retry-after" in answer.headers) is (status == 409)


async def test_a_change_shows_a_mail_whole_only_to_a_key_that_may_read_it(
    listener: RunningGateway, house: House
) -> None:
    mail = emails.Email(
        id=UUID(ID),
        status="queued",
        sender="a@example.com",
        subject="Your new password",
        accepted_at=NOW,
        expires_at=NOW + timedelta(days=3),
        recipients=[],
    )

    async def found(*_: object) -> emails.Email:
        return mail

    async def changed(*_: object) -> emails.EmailsChanged:
        return emails.EmailsChanged(matched=1, changed=1, complete=True)

    answers: dict[type[Request], Any] = {
        emails.GetEmail: found,
        emails.RescheduleEmail: found,
        emails.CancelEmails: changed,
    }
    await house.double(EMAIL, answers)
    path, later = f"/v1/emails/{ID}", {"send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    async with listener.client(await listener.new_key("emails:send")) as sender:
        for caller, subject in ((listener.api, "Your new password"), (sender, None)):
            for answer in (await caller.patch(path, json=later), await caller.delete(path)):
                assert (answer.status_code, answer.json().get("subject")) == (200, subject)
                assert answer.json()["status"] == "queued"
