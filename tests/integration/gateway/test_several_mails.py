"""Several mails in one request, and a mail as it is handed over, through a real gateway."""

from __future__ import annotations

import asyncio
import base64
from uuid import UUID, uuid4

import httpx
import pytest

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.emails import Email, GetEmail, GetRawEmail, RawEmail
from contracts.topology import EMAIL
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.pushes import NOW

GOOD = {"to": ["ann@example.com"], "subject": "Hello", "text": "Hi", "from": "shop@example.com"}
WRONG = {**GOOD, "to": ["nobody"]}
ID = UUID("0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11")


async def test_several_mails_are_accepted_together_and_become_commands(
    listener: RunningGateway, house: House
) -> None:
    planned = {**GOOD, "subject": "Later", "send_at": "2026-01-01T00:00:00Z", "metadata": {"n": 2**53}}
    answer = await listener.api.post("/v1/emails/batch", json={"emails": [GOOD, planned]})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["accepted"], found["refused"]) == (2, 0)
    assert [result["index"] for result in found["results"]] == [0, 1]
    assert all(r["message_id"] == f"<{r['id']}@example.com>" for r in found["results"])
    messages = await house.take("email.send", 2)
    assert [message["email_id"] for message in messages] == [result["id"] for result in found["results"]]
    assert messages[1]["metadata"] == {"n": 2**53}
    for result in found["results"]:
        assert (await listener.api.get(f"/v1/emails/{result['id']}")).json()["status"] == "queued"


async def test_bulk_mails_wait_in_a_queue_of_their_own(listener: RunningGateway, house: House) -> None:
    await house.purge("email.send", "email.bulk")
    mails = [GOOD, {**GOOD, "stream": "bulk"}, {**GOOD, "stream": "bulk"}]
    answer = await listener.api.post("/v1/emails/batch", json={"emails": mails})
    usual, *bulk = [result["id"] for result in answer.json()["results"]]
    assert [message["email_id"] for message in await house.take("email.bulk", 2)] == bulk
    assert [message["email_id"] for message in await house.take("email.send")] == [usual]


async def test_one_wrong_mail_stops_all_unless_the_mode_is_permissive(
    listener: RunningGateway, house: House
) -> None:
    await house.purge("email.send")
    mails = [GOOD, WRONG, {**GOOD, "subjekt": "x"}]
    problem = assert_problem(
        await listener.api.post("/v1/emails/batch", json={"emails": mails}), 422, "invalid-input"
    )
    assert [error["pointer"] for error in problem["errors"]] == ["/emails/1/to/0", "/emails/2/subjekt"]
    assert await house.depth("email.send") == 0
    answer = await listener.api.post("/v1/emails/batch", json={"emails": mails, "mode": "permissive"})
    found = answer.json()
    assert (answer.status_code, found["accepted"], found["refused"]) == (202, 1, 2)
    assert [result["status"] for result in found["results"]] == ["queued", "refused", "refused"]
    assert found["results"][1]["errors"][0]["pointer"] == "/emails/1/to/0"
    assert found["results"][1]["id"] is None
    [message] = await house.take("email.send")
    assert message["email_id"] == found["results"][0]["id"]


async def test_a_repeated_request_sends_no_mail_twice(listener: RunningGateway, house: House) -> None:
    headers = {"idempotency-key": "several"}
    body = {"emails": [GOOD, GOOD]}
    first = await listener.api.post("/v1/emails/batch", json=body, headers=headers)
    again = await listener.api.post("/v1/emails/batch", json=body, headers=headers)
    assert (again.headers["idempotent-replayed"], again.json()) == ("true", first.json())
    await house.take("email.send", 2)
    assert await house.depth("email.send") == 0


async def test_five_hundred_mails_are_the_most(listener: RunningGateway, house: House) -> None:
    assert_problem(
        await listener.api.post("/v1/emails/batch", json={"emails": [GOOD] * 501}), 422, "invalid-input"
    )
    assert_problem(await listener.api.post("/v1/emails/batch", json={"emails": []}), 422, "invalid-input")
    answer = await listener.api.post("/v1/emails/batch", json={"emails": [GOOD] * 500})
    assert answer.json()["accepted"] == 500
    await house.purge("email.send")


async def test_a_raw_mail_is_fetched_in_parts_and_answered_whole(
    listener: RunningGateway, house: House
) -> None:
    content = b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 60_000

    async def part(request: GetRawEmail, _: Deadline) -> RawEmail:
        if request.email_id != ID:
            raise NotFound("There is no such e-mail.")
        some = content[request.offset : request.offset + 256 * 1024]
        return RawEmail(content=base64.b64encode(some).decode(), size=len(content))

    async def none(_: GetEmail, __: Deadline) -> Email:
        raise NotFound("There is no such e-mail.")

    await house.double(EMAIL, {GetRawEmail: part, GetEmail: none})
    answer = await listener.api.get(f"/v1/emails/{ID}/raw")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "message/rfc822")
    assert answer.content == content
    assert_problem(await listener.api.get(f"/v1/emails/{UUID(int=1)}/raw"), 404, "not-found")


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_raw_mail_that_is_written_anew_while_it_is_read_is_cut_off(
    listener: RunningGateway, house: House, change: int
) -> None:
    async def part(request: GetRawEmail, _: Deadline) -> RawEmail:
        content = b"x" * (300_000 + (change * 100_000 if request.offset else 0))
        some = content[request.offset : request.offset + 256 * 1024]
        return RawEmail(content=base64.b64encode(some).decode(), size=len(content))

    await house.double(EMAIL, {GetRawEmail: part})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await asyncio.wait_for(listener.api.get(f"/v1/emails/{ID}/raw"), 30)


async def test_the_content_of_a_mail_that_is_accepted_to_be_sent_again_is_kept(
    listener: RunningGateway, house: House
) -> None:
    is_there, asked = True, list[GetEmail]()

    async def get(request: GetEmail, _: Deadline) -> Email:
        asked.append(request)
        return Email(
            id=request.email_id,
            status="delivered",
            sender="a@example.com",
            subject="Hello",
            accepted_at=NOW,
            content_available=is_there,
            recipients=[],
        )

    await house.double(EMAIL, {GetEmail: get})
    path, headers = f"/v1/emails/{ID}/resend", {"idempotency-key": str(uuid4())}
    first = await listener.api.post(path, headers=headers)
    assert first.status_code == 202, first.text
    is_there = False
    assert_problem(await listener.api.post(path), 409, "conflict")
    assert [request.for_copy for request in asked] == [True, True]
    # What was accepted is answered again.
    again = await listener.api.post(path, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
