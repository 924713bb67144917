"""Attachments of mails, in base64 within the request: their bytes go to email past the broker."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID, uuid4

import pytest

from support.gateway_stack import House, Listener
from support.problems import assert_problem
from support.upload_site import UploadSite

PDF, TEXT = bytes(range(256)) * 1_000, b"Hello\n"


@pytest.fixture(scope="module")
async def door(module_house: House, site: UploadSite) -> Listener:
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
    """Return what email has of a part."""
    content = await site.content_of(UUID(part["parcel_id"]))
    return content[part["start"] : part["start"] + part["size"]]


async def test_the_bytes_of_attachments_are_with_email_before_the_mail_is_accepted(
    door: Listener, site: UploadSite, module_house: House
) -> None:
    await module_house.purge("email.send")
    answer = await door.api.post("/v1/emails", json=attaching(PDF, b"", TEXT))
    assert answer.status_code == 202, answer.text
    [command] = await module_house.take("email.send")
    assert all("content" not in file for file in command["attachments"])
    assert [await bytes_of(site, file["part"]) for file in command["attachments"]] == [PDF, b"", TEXT]
    # The whole command is small, whatever it attaches.
    assert len(str(command)) < 2_000


async def test_several_mails_in_one_request_share_a_parcel(
    door: Listener, site: UploadSite, module_house: House
) -> None:
    await module_house.purge("email.send")
    before = await site.count()
    plain = {"to": ["bob@example.com"], "text": "without"}
    mails = [attaching(PDF), plain, attaching(TEXT, PDF)]
    answer = await door.api.post("/v1/emails/batch", json={"emails": mails})
    assert answer.json()["accepted"] == 3, answer.text
    assert await site.count() == before + 1
    commands = [(await module_house.take("email.send"))[0] for _ in range(3)]
    found = [await bytes_of(site, file["part"]) for each in commands for file in each.get("attachments", [])]
    assert sorted(found) == sorted([PDF, TEXT, PDF])
    async with site.postgres.connection() as connection:
        assert await connection.fetchval("SELECT mails_left FROM uploads ORDER BY id DESC LIMIT 1") == 2


async def test_a_repeated_request_sends_its_attachments_once(door: Listener, site: UploadSite) -> None:
    key, before = {"idempotency-key": f"a-{uuid4()}"}, await site.count()
    first, again = [await door.api.post("/v1/emails", json=attaching(TEXT), headers=key) for _ in range(2)]
    assert (first.status_code, first.json()) == (202, again.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert await site.count() == before + 1
    other = await door.api.post("/v1/emails", json=attaching(PDF), headers=key)
    assert_problem(other, 422, "idempotency-mismatch")


async def test_while_email_is_away_mails_with_attachments_are_503_and_nothing_of_them_is_accepted(
    house: House,
) -> None:
    door = await house.open(email_url="http://127.0.0.1:1", request_timeout_s=1)
    key = {"idempotency-key": f"a-{uuid4()}"}
    assert (await door.api.post("/v1/emails", json=attaching(TEXT), headers=key)).status_code in (503, 504)
    assert await door.database.fetchval("SELECT count(*) FROM acceptances WHERE kind = 'email'") == 0
    # Others are accepted as ever; the key is free.
    assert (await door.api.post("/v1/emails", json=attaching(), headers=key)).status_code == 202


async def test_without_the_broker_mails_with_attachments_are_503_and_others_accepted(
    house: House, site: UploadSite
) -> None:
    gate = await house.gate(*house.broker_place)
    door = await house.open(rabbitmq_url=house.broker_url_by(gate), email_url=site.url)
    assert (await door.api.post("/v1/emails", json=attaching(TEXT))).status_code == 202
    await gate.shut()
    assert (await door.api.post("/v1/emails", json=attaching(TEXT))).status_code in (503, 504)
    assert await door.database.fetchval("SELECT count(*) FROM acceptances WHERE kind = 'email'") == 1
    assert (await door.api.post("/v1/emails", json=attaching())).status_code == 202
