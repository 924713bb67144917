"""Attachments of mails, in base64 within the request: their bytes go to email past the broker."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any
from uuid import UUID, uuid4

import pytest

from support.event_streams import status_in
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.upload_site import UploadSite

PDF, TEXT = bytes(range(256)) * 1_000, b"Hello\n"


@pytest.fixture(scope="module")
async def listener(module_house: House, site: UploadSite) -> RunningGateway:
    return await module_house.open(email_url=site.url)


def attaching(*files: bytes) -> dict[str, Any]:
    return {
        "to": ["ann@example.com"],
        "subject": "Look",
        "text": "at this",
        "attachments": [
            {"filename": f"{number}.bin", "content": base64.b64encode(content).decode()}
            for number, content in enumerate(files)
        ],
    }


async def bytes_of(site: UploadSite, part: dict[str, Any]) -> bytes:
    """Return the bytes of a part that email has."""
    content = await site.content_of(UUID(part["parcel_id"]))
    return content[part["start"] : part["start"] + part["size"]]


async def test_the_bytes_of_attachments_are_with_email_before_the_mail_is_accepted(
    listener: RunningGateway, site: UploadSite, module_house: House
) -> None:
    await module_house.purge("email.send")
    answer = await listener.api.post("/v1/emails", json=attaching(PDF, b"", TEXT))
    assert answer.status_code == 202, answer.text
    [command] = await module_house.take("email.send")
    assert all("content" not in file for file in command["attachments"])
    assert [await bytes_of(site, file["part"]) for file in command["attachments"]] == [PDF, b"", TEXT]
    # The whole command is small, whatever it attaches.
    assert len(str(command)) < 2_000


async def test_several_mails_in_one_request_share_a_parcel(
    listener: RunningGateway, site: UploadSite, module_house: House
) -> None:
    await module_house.purge("email.send")
    before = await site.count()
    plain = {"to": ["bob@example.com"], "text": "without"}
    mails = [attaching(PDF), plain, attaching(TEXT, PDF)]
    answer = await listener.api.post("/v1/emails/batch", json={"emails": mails})
    assert answer.json()["accepted"] == 3, answer.text
    assert await site.count() == before + 1
    commands = [(await module_house.take("email.send"))[0] for _ in range(3)]
    found = [await bytes_of(site, file["part"]) for each in commands for file in each.get("attachments", [])]
    assert sorted(found) == sorted([PDF, TEXT, PDF])
    async with site.postgres.connection() as connection:
        assert await connection.fetchval("SELECT mails_left FROM uploads ORDER BY id DESC LIMIT 1") == 2


async def test_a_repeated_request_sends_its_attachments_once(
    listener: RunningGateway, site: UploadSite
) -> None:
    key, before = {"idempotency-key": f"a-{uuid4()}"}, await site.count()
    first, again = [
        await listener.api.post("/v1/emails", json=attaching(TEXT), headers=key) for _ in range(2)
    ]
    assert (first.status_code, first.json()) == (202, again.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert await site.count() == before + 1
    other = await listener.api.post("/v1/emails", json=attaching(PDF), headers=key)
    assert_problem(other, 422, "idempotency-mismatch")


async def test_while_email_is_away_mails_with_attachments_are_accepted_and_leave_once_it_is_back(
    house: House, site: UploadSite
) -> None:
    await house.purge("email.send")
    gate = await house.gate("127.0.0.1", site.port)
    listener = await house.open(email_url=f"http://127.0.0.1:{gate.port}")
    await gate.shut()
    before, key = await site.count(), {"idempotency-key": f"a-{uuid4()}"}
    first, again = [await listener.api.post("/v1/emails", json=attaching(PDF), headers=key) for _ in range(2)]
    assert (first.status_code, first.json()) == (202, again.json()), first.text
    mails = [attaching(TEXT), {"to": ["bob@example.com"], "text": "without"}, attaching(TEXT, PDF)]
    several = await listener.api.post("/v1/emails/batch", json={"emails": mails})
    assert several.json()["accepted"] == 3, several.text
    # Nothing leaves before its bytes but what has none.
    [plain] = await house.take("email.send")
    assert plain["email_id"] == several.json()["results"][1]["id"]
    assert await listener.database.fetchval("SELECT count(*) FROM waiting_parcels") == 2
    assert await house.depth("email.send") == 0
    await gate.open()
    commands = await house.take("email.send", 3)
    accepted = {first.json()["id"], *(several.json()["results"][index]["id"] for index in (0, 2))}
    assert {command["email_id"] for command in commands} == accepted
    found = [await bytes_of(site, file["part"]) for each in commands for file in each["attachments"]]
    assert sorted(found) == sorted([PDF, TEXT, TEXT, PDF])
    assert await site.count() == before + 2
    assert await listener.database.fetchval("SELECT count(*) FROM waiting_parcels") == 0
    assert await house.depth("email.send") == 0


async def test_without_the_broker_mails_with_attachments_are_accepted_too_and_leave_once_it_is_back(
    house: House, site: UploadSite
) -> None:
    await house.purge("email.send")
    gate = await house.gate(*house.broker_place)
    listener = await house.open(rabbitmq_url=house.broker_url_by(gate), email_url=site.url)
    await gate.shut()
    accepted = await listener.api.post("/v1/emails", json=attaching(PDF))
    assert accepted.status_code == 202, accepted.text
    seen = (await listener.api.get(f"/v1/emails/{accepted.json()['id']}")).json()
    assert (seen["status"], seen["next"]["what"]) == ("queued", "acceptance by the email service")
    await gate.open()
    [command] = await house.take("email.send")
    assert command["email_id"] == accepted.json()["id"]
    assert [await bytes_of(site, file["part"]) for file in command["attachments"]] == [PDF]
    assert await house.depth("email.send") == 0


async def test_an_email_service_that_does_not_answer_keeps_no_mail_from_being_accepted(
    house: House,
) -> None:
    # Connections are taken, and nothing more.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listener = await house.open(
            email_url=f"http://127.0.0.1:{silent.getsockname()[1]}", request_timeout_s=2
        )
        assert (await listener.api.post("/v1/emails", json=attaching(TEXT))).status_code == 202
        answer = await listener.api.post("/v1/emails/batch", json={"emails": [attaching(TEXT)]})
        assert answer.json()["accepted"] == 1, answer.text
    assert await listener.database.fetchval("SELECT count(*) FROM waiting_parcels") == 2


async def test_when_too_many_attachments_of_an_owner_wait_its_next_mail_is_429_and_others_are_accepted(
    house: House,
) -> None:
    listener = await house.open(email_url="http://127.0.0.1:1", parcels_owner_bytes=1 << 20)
    large, key = attaching(bytes(700_000)), {"idempotency-key": f"a-{uuid4()}"}
    assert (await listener.api.post("/v1/emails", json=large)).status_code == 202
    refused = [
        await listener.api.post("/v1/emails", json=large, headers=key),
        await listener.api.post("/v1/emails/batch", json={"emails": [large]}, headers=key),
    ]
    for answer in refused:
        assert_problem(answer, 429, "too-many-at-once")
        assert int(answer.headers["retry-after"]) > 0
    assert await listener.database.fetchval("SELECT count(*) FROM acceptances WHERE kind = 'email'") == 1
    # The key is free, and mails that fit are accepted, as are those of others.
    assert (await listener.api.post("/v1/emails", json=attaching(TEXT), headers=key)).status_code == 202
    async with listener.client(await listener.new_key("emails:send")) as other:
        assert (await other.post("/v1/emails", json=large)).status_code == 202


async def test_a_mail_that_waits_is_cancelled_and_rescheduled_without_email_and_everybody_is_told(
    house: House,
) -> None:
    listener = await house.open(email_url="http://127.0.0.1:1")
    first, second = [(await listener.api.post("/v1/emails", json=attaching(TEXT))).json() for _ in range(2)]
    async with (
        listener.client(await listener.new_key("emails:send")) as other,
        listener.api.stream("GET", f"/v1/emails/{first['id']}/events") as stream,
    ):
        assert stream.status_code == 200, await stream.aread()
        events = stream.aiter_lines()
        await status_in(events, "queued")
        # Only email could know a mail of this one.
        assert (await other.delete(f"/v1/emails/{first['id']}")).status_code == 503
        cancelled = await listener.api.delete(f"/v1/emails/{first['id']}")
        assert cancelled.status_code == 200, cancelled.text
        await status_in(events, "cancelled")
    seen = (await listener.api.get(f"/v1/emails/{first['id']}")).json()
    for view in (cancelled.json(), seen):
        assert (view["status"], view["reason"]) == (
            "cancelled",
            "cancelled before it reached the email service",
        )
        assert [event["kind"] for event in view["timeline"]] == ["accepted", "cancelled"]
        assert view["next"] is None
    path = f"/v1/emails/{second['id']}"
    moved = await listener.api.patch(path, json={"send_at": "2027-01-01T00:00:00Z"})
    assert (moved.status_code, moved.json()["status"]) == (200, "queued"), moved.text
    kept = await listener.database.fetch("SELECT body FROM waiting_parcel_messages")
    assert [json.loads(row["body"])["send_at"] for row in kept] == ["2027-01-01T00:00:00Z"]
    assert (await listener.api.delete(path)).status_code == 200
    assert await listener.database.fetchval("SELECT count(*) FROM waiting_parcels") == 0


async def test_a_mail_that_waits_is_sent_again_as_a_mail_of_its_own_with_its_own_attachments(
    house: House, site: UploadSite
) -> None:
    await house.purge("email.send")
    gate = await house.gate("127.0.0.1", site.port)
    listener = await house.open(email_url=f"http://127.0.0.1:{gate.port}")
    await gate.shut()
    tomorrow = {"send_at": "2027-01-01T00:00:00Z", "message_id": "<one@ours.example>", "tags": ["x"]}
    mails = [attaching(PDF), {**attaching(TEXT, b"", TEXT), **tomorrow}]
    several = await listener.api.post("/v1/emails/batch", json={"emails": mails})
    first, second = [result["id"] for result in several.json()["results"]]
    key = {"idempotency-key": f"a-{uuid4()}"}
    copied, again = [await listener.api.post(f"/v1/emails/{second}/resend", headers=key) for _ in range(2)]
    assert (copied.status_code, copied.json()) == (202, again.json()), copied.text
    third = copied.json()["id"]
    assert copied.json()["message_id"] == f"<{third}@ours.example>"
    lines = (await listener.api.get("/v1/emails", params={"waiting": "true", "tag": "x"})).json()["data"]
    assert [(line["id"], line["send_at"] is None) for line in lines] == [(third, True), (second, False)]
    # What becomes of the first is nothing to its copy.
    assert (await listener.api.delete(f"/v1/emails/{second}")).status_code == 200
    await gate.open()
    commands = {command["email_id"]: command for command in await house.take("email.send", 2)}
    assert set(commands) == {first, third}
    files = commands[third]["attachments"]
    assert [await bytes_of(site, file["part"]) for file in files] == [TEXT, b"", TEXT]
    assert await site.content_of(UUID(files[0]["part"]["parcel_id"])) == TEXT + TEXT
    async with listener.client(await listener.new_key("emails:send")) as other:
        assert (await other.post(f"/v1/emails/{first}/resend")).status_code != 202
    assert await house.depth("email.send") == 0
