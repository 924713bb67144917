"""A mail from the HTTP request to the SMTP reply, and back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.waiting import until

_FILE = bytes(range(256)) * 400


async def settled(api: httpx.AsyncClient, email_id: str) -> dict[str, Any]:
    async def found() -> Any:
        email = (await api.get(f"/v1/emails/{email_id}")).json()
        return email if email["status"] not in ("queued", "sending") else None

    email: dict[str, Any] = await until(found, timeout_s=30)
    return email


async def received(mailbox: httpx.AsyncClient, subject: str) -> list[dict[str, Any]]:
    messages = (await mailbox.get("/api/v1/messages", params={"limit": 500})).json()["messages"]
    return [message for message in messages if message["Subject"] == subject]


async def test_a_mail_arrives_as_text_and_html_and_its_state_quotes_the_reply(
    api: httpx.AsyncClient, mailbox: httpx.AsyncClient
) -> None:
    subject = f"Grüße {uuid4()}"
    mail = {
        "to": ["Ann <ann@example.com>"],
        "bcc": ["hidden@example.com"],
        "subject": subject,
        "text": "plain words",
        "html": "<p>rich <b>words</b></p>",
        "attachments": [{"filename": "é.bin", "content": base64.b64encode(_FILE).decode()}],
    }
    accepted = await api.post("/v1/emails", json=mail)
    assert accepted.status_code == 202
    assert accepted.json()["status"] == "queued"
    assert accepted.headers["location"] == f"/v1/emails/{accepted.json()['id']}"
    email = await settled(api, accepted.json()["id"])
    assert email["status"] == "delivered"
    assert {r["address"]: r["status"] for r in email["recipients"]} == {
        "ann@example.com": "delivered",
        "hidden@example.com": "delivered",
    }
    assert all(r["attempts"][0]["smtp_code"] == 250 for r in email["recipients"])
    found = await received(mailbox, subject)
    assert len(found) == 2
    whole = (await mailbox.get(f"/api/v1/message/{found[0]['ID']}")).json()
    assert whole["Text"].strip() == "plain words"
    assert "rich <b>words</b>" in whole["HTML"]
    [attached] = whole["Attachments"]
    part = await mailbox.get(f"/api/v1/message/{found[0]['ID']}/part/{attached['PartID']}")
    assert (attached["FileName"], part.content) == ("é.bin", _FILE)


@pytest.mark.usefixtures("refusals")
async def test_a_refused_recipient_does_not_hide_the_others(api: httpx.AsyncClient) -> None:
    # One of its own: what is refused twice is suppressed.
    refused = f"reject550+{uuid4().hex}@example.com"
    mail = {"to": [refused, "fine@example.com"], "subject": "two fates", "text": "x"}
    email = await settled(api, (await api.post("/v1/emails", json=mail)).json()["id"])
    assert email["status"] == "partially_delivered"
    fates = {r["address"]: r for r in email["recipients"]}
    assert fates["fine@example.com"]["status"] == "delivered"
    assert fates[refused]["status"] == "failed"
    assert fates[refused]["attempts"][0]["smtp_code"] == 550


@pytest.mark.usefixtures("refusals")
async def test_a_temporary_refusal_is_tried_again_at_a_due_time(api: httpx.AsyncClient) -> None:
    mail = {"to": ["defer451@example.com"], "subject": "later", "text": "x"}
    email = await settled(api, (await api.post("/v1/emails", json=mail)).json()["id"])
    recipient = email["recipients"][0]
    assert (email["status"], recipient["attempts"][0]["smtp_code"]) == ("deferred", 451)
    assert datetime.fromisoformat(recipient["next_attempt_at"]) > datetime.now(UTC)


async def test_a_mail_with_send_at_waits(api: httpx.AsyncClient, mailbox: httpx.AsyncClient) -> None:
    subject = f"later {uuid4()}"
    due = datetime.now(UTC) + timedelta(seconds=4)
    mail = {"to": ["later@example.com"], "subject": subject, "text": "x", "send_at": due.isoformat()}
    email_id = (await api.post("/v1/emails", json=mail)).json()["id"]

    async def arrived() -> Any:
        return await received(mailbox, subject)

    message = (await until(arrived, timeout_s=30))[0]
    email = await settled(api, email_id)
    at = datetime.fromisoformat(email["recipients"][0]["attempts"][0]["at"])
    assert at >= due
    assert message["Subject"] == subject


async def test_the_same_idempotency_key_sends_one_mail(
    api: httpx.AsyncClient, mailbox: httpx.AsyncClient
) -> None:
    subject = f"once {uuid4()}"
    mail = {"to": ["once@example.com"], "subject": subject, "text": "x"}
    headers = {"Idempotency-Key": f'"{uuid4()}"'}
    answers = [await api.post("/v1/emails", json=mail, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    other = await api.post("/v1/emails", json={**mail, "text": "y"}, headers=headers)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-mismatch"
    await settled(api, answers[0].json()["id"])
    assert len(await received(mailbox, subject)) == 1


async def test_mails_are_listed_rescheduled_cancelled_and_sent_again(
    api: httpx.AsyncClient, mailbox: httpx.AsyncClient
) -> None:
    tag, subject = f"tag-{uuid4()}", f"again {uuid4()}"
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    mail = {"to": ["ann@example.com"], "subject": subject, "text": "x", "tags": [tag]}
    ids = [(await api.post("/v1/emails", json={**mail, "send_at": later})).json()["id"] for _ in range(3)]

    async def listed(**filters: str) -> Any:
        found = (await api.get("/v1/emails", params={"tag": tag, **filters})).json()["data"]
        return {line["id"] for line in found}

    async def all_listed() -> bool:
        return bool(await listed(status="queued") == set(ids))

    await until(all_listed, timeout_s=30)
    email = (await api.get(f"/v1/emails/{ids[0]}")).json()
    assert email["next"]["what"] == "first attempt"
    assert datetime.fromisoformat(email["next"]["by"]) > datetime.fromisoformat(later)

    moved = await api.patch(f"/v1/emails/{ids[0]}", json={"send_at": datetime.now(UTC).isoformat()})
    assert moved.status_code == 200, moved.text
    assert (await settled(api, ids[0]))["status"] == "delivered"
    assert (await api.patch(f"/v1/emails/{ids[0]}", json={"send_at": later})).status_code == 409
    assert (await api.delete(f"/v1/emails/{ids[0]}")).status_code == 409

    cancelled = await api.delete(f"/v1/emails/{ids[1]}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    query = {"tag": tag, "status": "queued"}
    tried = await api.post("/v1/emails/cancel", params={**query, "dry_run": "true"})
    effect = {"matched": 1, "changed": 1, "dry_run": True, "complete": True}
    assert tried.json() == {**effect, "exact": True, "next_cursor": None}
    assert (await api.post("/v1/emails/cancel", params=query)).json()["changed"] == 1
    assert await listed(status="cancelled") == set(ids[1:])
    assert (await api.post("/v1/emails/retry", params={"tag": tag})).json()["changed"] == 0

    again = await api.post(f"/v1/emails/{ids[0]}/resend", headers={"Idempotency-Key": '"once"'})
    assert again.status_code == 202, again.text
    twice = await api.post(f"/v1/emails/{ids[0]}/resend", headers={"Idempotency-Key": '"once"'})
    assert twice.json() == again.json()
    assert (await settled(api, again.json()["id"]))["status"] == "delivered"
    assert len(await received(mailbox, subject)) == 2


async def test_unknown_mails_and_bulk_actions_without_a_filter_are_refused(api: httpx.AsyncClient) -> None:
    unknown = f"/v1/emails/{uuid4()}"
    assert (await api.delete(unknown)).status_code == 404
    assert (await api.patch(unknown, json={"send_at": "2026-01-01T00:00:00Z"})).status_code == 404
    assert (await api.post(f"{unknown}/resend")).status_code == 404
    assert (await api.post("/v1/emails/cancel")).status_code == 422
    assert (await api.post("/v1/emails/retry", params={"status": "sending"})).status_code == 422
    assert (await api.get("/v1/emails", params={"cursor": "nonsense"})).status_code == 422
