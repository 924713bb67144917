"""Files for mails, from the caller through the gateway to the email service's database."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.mail import MOST_UPLOAD_BYTES
from gateway.uploads import service as uploads
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.upload_site import UploadSite, uploaded
from support.waiting import until

CONTENT = bytes(range(256)) * 5_000
TO = {"to": ["ann@example.com"], "subject": "Look", "text": "at this"}


@pytest.fixture(scope="module")
async def listener(module_house: House, site: UploadSite) -> RunningGateway:
    return await module_house.open(email_url=site.url)


def attaching(*ids: str) -> dict[str, Any]:
    return {**TO, "attachments": [{"filename": "a.bin", "upload_id": each} for each in ids]}


async def test_an_upload_is_answered_with_its_checksum_and_attached_by_its_id(
    listener: RunningGateway, site: UploadSite, module_house: House
) -> None:
    answer = await uploaded(listener.api, CONTENT)
    assert answer.status_code == 201, answer.text
    made, digest = answer.json(), hashlib.sha256(CONTENT).hexdigest()
    assert (made["size_bytes"], made["sha256"], answer.headers["etag"]) == (
        len(CONTENT),
        digest,
        f'"{digest}"',
    )
    assert answer.headers["location"] == f"/v1/uploads/{made['id']}"
    assert (await listener.api.get(answer.headers["location"])).json() == made
    assert await site.content_of(UUID(made["id"])) == CONTENT
    await module_house.purge("email.send")
    assert (await listener.api.post("/v1/emails", json=attaching(made["id"]))).status_code == 202
    [command] = await module_house.take("email.send")
    assert command["attachments"][0]["upload_id"] == made["id"]
    assert "content" not in command["attachments"][0]


async def test_a_repeated_upload_gets_the_same_answer_and_another_one_with_its_key_is_refused(
    listener: RunningGateway, site: UploadSite
) -> None:
    key, before = {"idempotency-key": f"u-{uuid4()}"}, await site.count()
    first, again = [await uploaded(listener.api, CONTENT, **key) for _ in range(2)]
    assert first.json() == again.json()
    assert (again.headers["etag"], again.headers["idempotent-replayed"]) == (first.headers["etag"], "true")
    assert_problem(await uploaded(listener.api, CONTENT + b"x", **key), 422, "idempotency-mismatch")
    assert await site.count() == before + 1


async def test_uploads_of_others_expired_ones_and_too_many_bytes_are_refused_with_a_pointer(
    listener: RunningGateway,
) -> None:
    halves = [await uploaded(listener.api, bytes(MOST_UPLOAD_BYTES // 2 + 1)) for _ in range(2)]
    ids = [answer.json()["id"] for answer in halves]
    problem = (await listener.api.post("/v1/emails", json=attaching(*ids))).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/attachments"]
    async with listener.client(await listener.new_key("emails:send")) as other:
        assert_problem(await other.get(f"/v1/uploads/{ids[0]}"), 404, "not-found")
        answer = await other.post("/v1/emails", json=attaching(ids[0]))
        assert_problem(answer, 422, "invalid-input")
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/attachments/0/upload_id"]
        several = {"emails": [TO, attaching(ids[0])], "mode": "permissive"}
        results = (await other.post("/v1/emails/batch", json=several)).json()["results"]
        assert [result["status"] for result in results] == ["queued", "refused"]
        assert results[1]["errors"][0]["pointer"] == "/emails/1/attachments/0/upload_id"
        several["mode"] = "strict"
        assert_problem(await other.post("/v1/emails/batch", json=several), 422, "invalid-input")
    await listener.database.execute("UPDATE uploads SET expires_at = now() WHERE id = $1", UUID(ids[0]))
    assert_problem(await listener.api.get(f"/v1/uploads/{ids[0]}"), 404, "not-found")
    assert_problem(await listener.api.post("/v1/emails", json=attaching(ids[0])), 422, "invalid-input")


async def test_a_mail_that_was_accepted_is_answered_again_when_its_upload_has_expired(
    listener: RunningGateway,
) -> None:
    upload_id = (await uploaded(listener.api, b"x")).json()["id"]
    key = {"idempotency-key": f"m-{uuid4()}"}
    first = await listener.api.post("/v1/emails", json=attaching(upload_id), headers=key)
    await listener.database.execute("UPDATE uploads SET expires_at = now() WHERE id = $1", UUID(upload_id))
    again = await listener.api.post("/v1/emails", json=attaching(upload_id), headers=key)
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())


async def test_an_upload_over_20_mib_is_413_by_its_length_and_by_counting(
    listener: RunningGateway, site: UploadSite
) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(MOST_UPLOAD_BYTES // (1 << 20) + 1):
            yield bytes(1 << 20)

    await until(site.is_idle)
    before = await site.count()
    assert_problem(await uploaded(listener.api, bytes(MOST_UPLOAD_BYTES + 1)), 413, "payload-too-large")
    octets = {"content-type": "application/octet-stream"}
    answer = await listener.api.post("/v1/uploads", content=unannounced(), headers=octets)
    assert_problem(answer, 413, "payload-too-large")
    await until(site.is_idle)
    assert await site.count() == before


async def test_an_upload_that_breaks_off_leaves_nothing_and_frees_its_key(
    listener: RunningGateway, site: UploadSite
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionResetError

    before, key = await site.count(), f"u-{uuid4()}"
    headers = {"content-type": "application/octet-stream", "idempotency-key": key}
    with pytest.raises(ConnectionResetError):
        await listener.api.post("/v1/uploads", content=broken(), headers=headers)

    async def is_free() -> bool:
        return (await uploaded(listener.api, CONTENT, **{"idempotency-key": key})).status_code == 201

    await until(is_free)
    await until(site.is_idle)
    assert await site.count() == before + 1


async def test_the_concurrent_uploads_of_an_owner_are_limited(
    listener: RunningGateway, site: UploadSite
) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await go_on.wait()

    octets = {"content-type": "application/octet-stream"}
    coming = [
        asyncio.create_task(listener.api.post("/v1/uploads", content=slow(), headers=octets))
        for _ in range(uploads.MOST_OF_AN_OWNER)
    ]

    await until(lambda: site.is_idle(but=uploads.MOST_OF_AN_OWNER))
    assert_problem(await uploaded(listener.api, b"x"), 429, "too-many-at-once")
    async with listener.client(await listener.new_key("emails:send")) as other:
        assert (await uploaded(other, b"x")).status_code == 201
    go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*coming)} == {201}


async def test_a_packed_upload_and_another_media_type_are_refused(listener: RunningGateway) -> None:
    for coding in ("gzip", "br"):
        refused = await uploaded(listener.api, b"x", **{"content-encoding": coding})
        assert_problem(refused, 415, "unsupported-media-type")
        assert refused.headers["accept-encoding"] == "identity"
    assert_problem(await listener.api.post("/v1/uploads", json={}), 415, "unsupported-media-type")


async def test_while_email_is_away_an_upload_is_503_and_mails_with_uploads_are_accepted(
    house: House,
) -> None:
    listener = await house.open(email_url="http://127.0.0.1:1", request_timeout_s=1)
    assert (await uploaded(listener.api, b"x")).status_code == 503
    upload_id = uuid4()
    await listener.database.execute(
        "INSERT INTO uploads (id, owner_id, size_bytes, sha256, created_at, expires_at)"
        " SELECT $1, id::text, 1, 'x', now(), now() + interval '1 hour' FROM users",
        upload_id,
    )
    assert (await listener.api.post("/v1/emails", json=attaching(str(upload_id)))).status_code == 202
