"""Mails that wait at the gateway are cancelled by filter, beside those that email has."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from chassis.deadlines import Deadline
from chassis.errors import Overloaded
from contracts.emails import CancelEmails, EmailsChanged, RetryEmails
from contracts.uploads import OpenedUpload, OpenParcel
from gateway.emails import repository as parcels
from gateway.emails import waiting_mails
from support.gateway_stack import House
from support.problems import assert_problem

MAIL = {
    "text": "Attached.",
    "attachments": [{"filename": "note.txt", "content": "SGVsbG8="}],
}
MAILS = [
    {**MAIL, "to": ["Ann <ann@example.com>"]},
    {**MAIL, "to": ["cid@example.com"], "bcc": ["bob@example.com"], "tags": ["x"]},
    {**MAIL, "to": ["cid@example.com"]},
]


async def refuse(_: OpenParcel, __: Deadline) -> OpenedUpload:
    raise Overloaded("not yet")


async def test_mails_that_wait_match_as_those_of_email_do_and_both_are_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CancelEmails] = []

    async def cancel(question: CancelEmails, _: Deadline) -> EmailsChanged:
        asked.append(question)
        return EmailsChanged(matched=5, changed=4, complete=True)

    listener = await house.open(email_url="http://127.0.0.1:1")
    await house.double("email", {CancelEmails: cancel, OpenParcel: refuse})
    ids = [(await listener.api.post("/v1/emails", json=mail)).json()["id"] for mail in MAILS]

    async def cancelled(**query: str) -> tuple[int, int, bool]:
        answer = await listener.api.post("/v1/emails/cancel", params=query)
        found = answer.json()
        assert answer.status_code == 200, answer.text
        return found["matched"] - 5, found["changed"] - 4, found["complete"]

    for nothing in (
        {"status": "failed"},
        {"to": "ann@example.org"},
        {"tag": "y"},
        {"created_before": "2026-01-01T00:00:00Z"},
    ):
        assert await cancelled(**nothing) == (0, 0, True), nothing
    assert await cancelled(created_after="2026-01-01T00:00:00Z", dry_run="true") == (3, 3, True)
    async with listener.client(await listener.new_key("emails:send", "emails:read")) as other:
        answer = await other.post("/v1/emails/cancel", params={"status": "queued"})
        assert answer.json()["matched"] == 5, answer.text
    assert await cancelled(to="ann@example.com") == (1, 1, True)
    monkeypatch.setattr(waiting_mails, "MOST_CHANGED", 1)
    assert await cancelled(to="bob@example.com", tag="x", status="queued,held") == (1, 1, True)
    assert (await listener.api.get(f"/v1/emails/{ids[2]}")).json()["status"] == "queued"
    assert await cancelled(status="queued") == (1, 1, True)
    assert await cancelled(status="queued") == (0, 0, True)
    for identifier in ids:
        assert (await listener.api.get(f"/v1/emails/{identifier}")).json()["status"] == "cancelled"
    assert asked[-1].wanted.status == ["queued"]


async def test_a_key_that_only_sends_does_not_learn_how_many_mails_match(house: House) -> None:
    async def change(_: CancelEmails | RetryEmails, __: Deadline) -> EmailsChanged:
        return EmailsChanged(matched=5, changed=4, complete=True)

    listener = await house.open()
    await house.double("email", {CancelEmails: change, RetryEmails: change})
    async with listener.client(await listener.new_key("emails:send")) as sender:
        for way in ("/v1/emails/cancel", "/v1/emails/retry"):
            refused = await sender.post(way, params={"to": "ann@example.com", "dry_run": "true"})
            assert_problem(refused, 403, "forbidden")
            assert "emails:read" in refused.headers["www-authenticate"]
            done = await sender.post(way, params={"to": "ann@example.com"})
            assert done.json() == {"changed": 4, "dry_run": False, "complete": True, "next_cursor": None}


@pytest.mark.parametrize("bound", ["MOST_CHANGED", "MOST_EXAMINED"])
async def test_the_steps_of_a_bulk_action_take_each_mail_once_first_those_that_wait(
    house: House, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    last = UUID(int=5)
    asked: list[UUID | None] = []

    async def cancel(question: CancelEmails, _: Deadline) -> EmailsChanged:
        asked.append(question.before)
        if question.before:
            return EmailsChanged(matched=1, changed=1, complete=True)
        return EmailsChanged(matched=3, changed=2, complete=False, next_cursor=last)

    module = waiting_mails if bound == "MOST_CHANGED" else parcels
    monkeypatch.setattr(module, bound, 1)
    listener = await house.open(email_url="http://127.0.0.1:1")
    await house.double("email", {CancelEmails: cancel, OpenParcel: refuse})
    ids = [(await listener.api.post("/v1/emails", json=mail)).json()["id"] for mail in MAILS]
    for dry_run in ("true", "false"):
        asked.clear()
        query = {"to": "cid@example.com", "dry_run": dry_run}
        steps: list[dict[str, Any]] = []
        while not steps or not steps[-1]["complete"]:
            assert len(steps) < 8, steps
            answer = await listener.api.post("/v1/emails/cancel", params=query)
            assert answer.status_code == 200, answer.text
            steps.append(answer.json())
            query["cursor"] = steps[-1]["next_cursor"]
        assert asked == [None, last]
        assert (sum(step["matched"] for step in steps), sum(step["changed"] for step in steps)) == (6, 5)
        assert len(steps) > len(asked)
    states = [(await listener.api.get(f"/v1/emails/{identifier}")).json()["status"] for identifier in ids]
    assert states == ["queued", "cancelled", "cancelled"]
    wrong = await listener.api.post("/v1/emails/cancel", params={"status": "queued", "cursor": "5"})
    assert_problem(wrong, 422, "invalid-input")
