"""Attachments that are sent ahead of their mails arrive whole, and are removed completely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded, TooManyAtOnce
from contracts.emails import SendEmail
from contracts.uploads import OpenParcel
from emailer.uploads.repository import LEAST_COUNTED_BYTES
from emailer.uploads.service import UploadLimits, UploadReceiver
from support.doubles.post_office import OWNER, PostOffice, mail

PDF, TEXT = bytes(range(256)) * 2_000, b"Hello\n"


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def sent_ahead(post_office: PostOffice, content: bytes, *, mail_count: int, owner: str = OWNER) -> UUID:
    service, parcel_id = UploadReceiver(post_office.postgres, UploadLimits()), new_id()
    request = OpenParcel(parcel_id=parcel_id, owner_id=owner, size_bytes=len(content), mail_count=mail_count)
    opened = await service.open_parcel(request, Deadline.after(30))
    stored = await service.store(parcel_id, opened.token, once(content))
    assert stored.size_bytes == len(content)
    return parcel_id


def with_parts(
    parcel_id: UUID, *parts: tuple[str, str, int, int], to: str = "reader@example.com"
) -> SendEmail:
    files = [
        {
            "filename": name,
            "content_type": kind,
            "part": {"parcel_id": parcel_id, "start": start, "size": size},
        }
        for name, kind, start, size in parts
    ]
    return mail(to=[to], attachments=files)


async def count(post_office: PostOffice, table: str) -> int:
    async with post_office.postgres.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_attachments_that_went_ahead_arrive_whole_and_their_parcel_goes_with_its_last_mail(
    post_office: PostOffice,
) -> None:
    parcel_id = await sent_ahead(post_office, PDF + TEXT, mail_count=2)
    both = with_parts(
        parcel_id,
        ("a.pdf", "application/pdf", 0, len(PDF)),
        ("b.txt", "text/plain", len(PDF), len(TEXT)),
    )
    one = with_parts(parcel_id, ("c.txt", "text/plain", len(PDF), len(TEXT)), to="other@example.com")
    # A command may come twice: it is stored once, and counts once.
    await post_office.accept(both)
    await post_office.accept(both, both)
    assert await count(post_office, "uploads") == 1
    await post_office.accept(one, one)
    assert (await count(post_office, "uploads"), await count(post_office, "upload_parts")) == (0, 0)
    await post_office.accept(both)
    async with post_office.delivering():
        await post_office.reaches(both, "delivered")
        await post_office.reaches(one, "delivered")
    found = {
        part.get_filename(): part.get_payload(decode=True)
        for received in post_office.server.received
        for part in received.message.iter_attachments()
    }
    assert found == {"a.pdf": PDF, "b.txt": TEXT, "c.txt": TEXT}
    assert len(post_office.server.received) == 2


async def test_a_mail_with_parts_that_are_not_there_fails_and_says_so(post_office: PostOffice) -> None:
    others = await sent_ahead(post_office, TEXT, mail_count=1, owner="somebody else")
    own = await sent_ahead(post_office, TEXT, mail_count=1)
    for command in (
        with_parts(new_id(), ("a.txt", "text/plain", 0, 1)),
        with_parts(others, ("a.txt", "text/plain", 0, 1)),
        with_parts(own, ("a.txt", "text/plain", 3, len(TEXT))),
    ):
        await post_office.accept(command)
        failed = await post_office.read(command)
        assert failed.status == "failed"
        assert (
            "the content of the attachment 'a.txt' is missing" in failed.recipients[0].attempts[0].smtp_reply
        )


async def test_a_parcel_that_no_mail_claims_is_removed_when_its_time_is_over(post_office: PostOffice) -> None:
    parcel_id = await sent_ahead(post_office, TEXT, mail_count=1)
    service = UploadReceiver(post_office.postgres, UploadLimits())
    await service.remove()
    assert await count(post_office, "uploads") == 1
    async with post_office.postgres.connection() as connection:
        # Long enough for a command that waits for the broker, or is parked meanwhile.
        days = await connection.fetchval(
            "SELECT extract(day FROM expires_at - now())::int FROM uploads WHERE id = $1", parcel_id
        )
        assert days >= 29
        await connection.execute("UPDATE uploads SET expires_at = now() - interval '2 days'")
    await service.remove()
    assert await count(post_office, "uploads") == 0


async def test_parcels_that_wait_for_their_mails_are_bounded_by_owner_and_in_total(
    post_office: PostOffice,
) -> None:
    least = LEAST_COUNTED_BYTES
    service = UploadReceiver(post_office.postgres, UploadLimits(owner_bytes=3 * least, total_bytes=5 * least))

    async def open_(owner: str, size: int = 1) -> None:
        request = OpenParcel(parcel_id=new_id(), owner_id=owner, size_bytes=size, mail_count=1)
        await service.open_parcel(request, Deadline.after(30))

    for _ in range(2):
        await open_("a")
    # Over the limit of an owner, and over its share of what is left.
    for size in (2 * least, 1):
        with pytest.raises(TooManyAtOnce):
            await open_("a", size)
    for owner in "bcd":
        await open_(owner)
    with pytest.raises(Overloaded):
        await open_("e")


async def test_parcels_that_are_opened_at_the_same_time_share_the_room(post_office: PostOffice) -> None:
    least = LEAST_COUNTED_BYTES
    service = UploadReceiver(post_office.postgres, UploadLimits(owner_bytes=2 * least, total_bytes=5 * least))
    async with AsyncExitStack() as opened:
        # One for each, or they would take turns at the connection that there is.
        for _ in range(4):
            await opened.enter_async_context(post_office.postgres.connection())
    found = await asyncio.gather(
        *(
            service.open_parcel(
                OpenParcel(parcel_id=new_id(), owner_id=OWNER, size_bytes=1, mail_count=1), Deadline.after(30)
            )
            for _ in range(4)
        ),
        return_exceptions=True,
    )
    assert [type(each) for each in found if isinstance(each, Exception)] == [TooManyAtOnce] * 2
    assert await count(post_office, "uploads") == 2


async def test_mails_may_not_name_a_parcel_as_an_upload(post_office: PostOffice) -> None:
    parcel_id = await sent_ahead(post_office, TEXT, mail_count=1)
    command = mail(attachments=[{"filename": "a.txt", "upload_id": parcel_id}])
    await post_office.accept(command)
    assert (await post_office.read(command)).status == "failed"


async def test_the_permission_for_a_parcel_is_valid_for_one_attempt(post_office: PostOffice) -> None:
    service, parcel_id = UploadReceiver(post_office.postgres, UploadLimits()), new_id()
    request = OpenParcel(parcel_id=parcel_id, owner_id=OWNER, size_bytes=6, mail_count=1)
    opened = await service.open_parcel(request, Deadline.after(30))
    await service.store(parcel_id, opened.token, once(TEXT))
    with pytest.raises(NotFound):
        await service.store(parcel_id, opened.token, once(TEXT))


async def test_a_parcel_that_is_opened_again_begins_anew_and_a_stored_one_stays_as_it_is(
    post_office: PostOffice,
) -> None:
    service, parcel_id = UploadReceiver(post_office.postgres, UploadLimits(owner_bytes=len(PDF))), new_id()
    request = OpenParcel(parcel_id=parcel_id, owner_id=OWNER, size_bytes=len(PDF), mail_count=1)
    first, again = [await service.open_parcel(request, Deadline.after(30)) for _ in range(2)]
    with pytest.raises(NotFound):
        await service.store(parcel_id, first.token, once(PDF))
    stored = await service.store(parcel_id, again.token, once(PDF))
    for _ in range(2):
        opened = await service.open_parcel(request, Deadline.after(30))
        assert opened.stored is not None
        assert (opened.stored.sha256, opened.stored.size_bytes) == (stored.sha256, len(PDF))
        with pytest.raises(NotFound):
            await service.store(parcel_id, opened.token, once(PDF))
    command = with_parts(parcel_id, ("a.pdf", "application/pdf", 0, len(PDF)))
    await post_office.accept(command)
    assert (await post_office.read(command)).status == "queued"
    assert await count(post_office, "uploads") == 0


async def test_a_sender_from_before_a_parcel_was_opened_again_cannot_complete_it_without_its_beginning(
    post_office: PostOffice,
) -> None:
    service, parcel_id = UploadReceiver(post_office.postgres, UploadLimits()), new_id()
    request = OpenParcel(parcel_id=parcel_id, owner_id=OWNER, size_bytes=len(PDF), mail_count=1)

    async def interrupted() -> AsyncIterator[bytes]:
        yield PDF[: 300 * 1024]
        # The first part is stored.
        assert await count(post_office, "upload_parts") == 1
        await service.open_parcel(request, Deadline.after(30))
        yield PDF[300 * 1024 :]

    opened = await service.open_parcel(request, Deadline.after(30))
    with pytest.raises(NotFound):
        await service.store(parcel_id, opened.token, interrupted())
    opened = await service.open_parcel(request, Deadline.after(30))
    assert opened.stored is None
    assert (await service.store(parcel_id, opened.token, once(PDF))).size_bytes == len(PDF)
