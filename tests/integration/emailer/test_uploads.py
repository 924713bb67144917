"""Uploads on a real database: bounded, all or nothing, used by mails, and removed when nobody needs them."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded, PayloadTooLarge, TooManyAtOnce
from contracts.emails import GetRawEmail, ResendEmail
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.uploads import OpenUpload, StoredUpload
from emailer.errors import TooManyUploads
from emailer.mails import choosing
from emailer.sending.raw import RawMails
from emailer.uploads import repository
from emailer.uploads.service import UploadLimits, UploadReceiver
from support.doubles.post_office import OWNER, PostOffice, mail, senders
from support.waiting import until

SOON = Deadline(float("inf"))
CONTENT = bytes(range(256)) * 2000


async def parts(content: bytes, *, size: int = 60_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def upload(
    service: UploadReceiver, content: bytes = CONTENT, *, owner_id: str = OWNER
) -> tuple[UUID, StoredUpload]:
    upload_id = new_id()
    opened = await service.open(OpenUpload(upload_id=upload_id, owner_id=owner_id), SOON)
    return upload_id, await service.store(upload_id, opened.token, parts(content))


@pytest.fixture
async def service(post_office: PostOffice) -> UploadReceiver:
    async with post_office.postgres.connection() as connection:
        await connection.execute("TRUNCATE uploads CASCADE")
    return UploadReceiver(post_office.postgres, UploadLimits())


async def count(post_office: PostOffice, table: str = "uploads") -> int:
    async with post_office.postgres.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def age(post_office: PostOffice) -> None:
    """Let the time limit of every upload, and the grace period after it, pass."""
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE uploads SET expires_at = now() - interval '2 days'")


def removed(kind: str) -> float:
    return REGISTRY.get_sample_value("tickwire_email_uploads_removed_total", {"kind": kind}) or 0


def naming(upload_id: UUID, **fields: Any) -> Any:
    file = {"filename": "a.bin", "upload_id": upload_id}
    return mail(attachments=[file], **fields)


async def test_a_mail_carries_the_bytes_of_its_upload_and_shows_them(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    upload_id, stored = await upload(service)
    assert (stored.size_bytes, stored.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    sent = naming(upload_id, to=["a@example.com", "b@example.com"])
    await post_office.accept(sent)
    raw = await RawMails(post_office.postgres, senders(), post_office.preparation).part(
        GetRawEmail(email_id=sent.email_id, owner_id=OWNER)
    )
    async with post_office.delivering():
        await post_office.reaches(sent, "delivered")
    assert len(post_office.server.received) == 2
    for received in post_office.server.received:
        message = email.message_from_bytes(received.content)
        [content] = [part.get_payload(decode=True) for part in message.walk() if part.get_filename()]
        assert content == CONTENT
        assert received.content.startswith(base64.b64decode(raw.content)[:10_000])


async def test_an_upload_that_another_owner_names_is_not_there(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    upload_id, _ = await upload(service, owner_id="other")
    refused = naming(upload_id)
    await post_office.accept(refused)
    found = await post_office.read(refused)
    assert found.status == "failed"
    assert f"there is no upload {upload_id}" in found.recipients[0].attempts[0].smtp_reply


async def test_a_resent_mail_has_the_upload_too_however_old_it_is(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    upload_id, _ = await upload(service)
    waiting = naming(upload_id)
    await post_office.accept(waiting)
    await age(post_office)
    await service.remove()
    again = ResendEmail(
        email_id=new_id(), source_id=waiting.email_id, owner_id=OWNER, accepted_at=waiting.accepted_at
    )
    async with post_office.postgres.transaction() as connection:
        assert await choosing.copy(connection, again, life_s=3600, trace=(None, None))
        names = await connection.fetch("SELECT upload_id FROM attachments")
    assert [row["upload_id"] for row in names] == [upload_id] * 2


async def test_uploads_are_removed_once_no_mail_needs_them_and_unused_ones_are_counted(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    used, _ = await upload(service)
    await upload(service, b"in vain")
    await post_office.accept(naming(used))
    await service.remove()
    assert await count(post_office) == 2
    was_unused, was_used = removed("unused"), removed("used")
    await age(post_office)
    await service.remove()
    assert (await count(post_office), removed("unused")) == (1, was_unused + 1)
    async with post_office.postgres.connection() as connection:
        await connection.execute("DELETE FROM attachments")
    await service.remove()
    assert (await count(post_office), removed("used")) == (0, was_used + 1)
    assert await count(post_office, "upload_parts") == 0


async def test_an_upload_that_breaks_off_or_is_too_large_leaves_nothing(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionError

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield CONTENT

    for content, error in ((broken(), ConnectionError), (endless(), PayloadTooLarge)):
        upload_id = new_id()
        opened = await service.open(OpenUpload(upload_id=upload_id, owner_id=OWNER), SOON)
        with pytest.raises(error):
            await service.store(upload_id, opened.token, content)
    assert (await count(post_office), await count(post_office, "upload_parts")) == (0, 0)


async def test_a_permission_is_valid_once_and_for_its_upload_only(service: UploadReceiver) -> None:
    upload_id, other_id = new_id(), new_id()
    opened = await service.open(OpenUpload(upload_id=upload_id, owner_id=OWNER), SOON)
    await service.open(OpenUpload(upload_id=other_id, owner_id=OWNER), SOON)
    for wrong_id, token in ((other_id, opened.token), (upload_id, "x")):
        with pytest.raises(NotFound):
            await service.store(wrong_id, token, parts(b"x"))
    await service.store(upload_id, opened.token, parts(b"x"))
    with pytest.raises(NotFound):
        await service.store(upload_id, opened.token, parts(b"y"))


async def test_uploads_are_bounded_by_owner_and_in_total_even_when_they_come_together(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    narrow = UploadReceiver(
        post_office.postgres,
        UploadLimits(owner_bytes=2 * MOST_UPLOAD_BYTES, total_bytes=5 * MOST_UPLOAD_BYTES),
    )

    def opening(owner_id: str) -> Any:
        return narrow.open(OpenUpload(upload_id=new_id(), owner_id=owner_id), SOON)

    found = await asyncio.gather(*(opening("a") for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in found if isinstance(each, Exception)] == [TooManyUploads] * 3
    await opening("b")
    # One more would be all that is left beside the reserve.
    with pytest.raises(TooManyAtOnce, match="other owners"):
        await opening("b")
    for owner_id in "cd":
        await opening(owner_id)
    with pytest.raises(Overloaded):
        await opening("e")


async def test_a_small_upload_counts_as_a_minimum_number_of_bytes(
    post_office: PostOffice, service: UploadReceiver
) -> None:
    await upload(service, b"")
    async with post_office.postgres.connection() as connection:
        assert await repository.measure(connection, OWNER) == (repository.LEAST_COUNTED_BYTES,) * 2


async def test_the_bytes_of_uploads_and_their_limit_are_measured(service: UploadReceiver) -> None:
    await upload(service)
    measuring = asyncio.create_task(service.keep_removing())

    async def is_measured() -> bool:
        return REGISTRY.get_sample_value("tickwire_email_uploads_bytes") == len(CONTENT)

    await until(is_measured)
    measuring.cancel()
    assert REGISTRY.get_sample_value("tickwire_email_uploads_most_bytes") == UploadLimits().total_bytes
