"""The owner sees a mail as it is handed over, or the reason why not, and nobody waits for others."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from chassis import supervision
from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import Conflict, Overloaded, TooManyAtOnce, Unavailable
from contracts.emails import GetRawEmail, SendEmail
from contracts.templates import SaveTemplate, TemplateSource
from contracts.uploads import OpenUpload
from emailer.errors import UnwritableMail
from emailer.mails import repository
from emailer.mails.stored_mail import StoredMail
from emailer.sending import raw
from emailer.sending.raw import RawMails
from emailer.templates.answers import TemplateAnswers
from emailer.uploads.service import UploadLimits, UploadReceiver
from support.doubles.post_office import OWNER, PostOffice, mail, senders
from support.waiting import until

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


async def stored(post_office: PostOffice, text: str, *, owner_id: str = OWNER) -> SendEmail:
    """Return a mail of a template that says `text`."""
    answers = TemplateAnswers(post_office.postgres, post_office.renderer, most_of_owner=3)
    source = TemplateSource(subject="Hello", text=text)
    saving = SaveTemplate(owner_id=owner_id, name="welcome", source=source)
    await answers.save(saving, Deadline(float("inf")))
    found = mail(owner_id=owner_id, subject="", text=None, template={"name": "welcome", "data": {}})
    await post_office.accept(found)
    return found


async def with_upload(post_office: PostOffice, owner_id: str) -> SendEmail:
    """Return a mail of the owner with an upload, which is stored."""
    receiver, upload_id = UploadReceiver(post_office.postgres, UploadLimits()), new_id()
    opened = await receiver.open(OpenUpload(upload_id=upload_id, owner_id=owner_id), Deadline(float("inf")))

    async def content() -> AsyncIterator[bytes]:
        yield b"bytes of a file"

    await receiver.store(upload_id, opened.token, content())
    return mail(owner_id=owner_id, attachments=[{"filename": "a.bin", "upload_id": upload_id}])


def reading(command: SendEmail) -> GetRawEmail:
    return GetRawEmail(email_id=command.email_id, owner_id=command.owner_id)


@pytest.fixture
async def mails(post_office: PostOffice) -> AsyncIterator[RawMails]:
    mails = RawMails(post_office.postgres, senders(), post_office.preparation)
    running = asyncio.create_task(mails.run())
    await asyncio.sleep(0)
    yield mails
    await supervision.end([running])


class SlowWriter:
    """Notes the mails that are written; each takes until `may_end`, and fails if there is an `error`."""

    def __init__(self, post_office: PostOffice) -> None:
        self.begun: list[UUID] = []
        self.may_end = asyncio.Event()
        self.error: UnwritableMail | None = None
        self._write = post_office.writer.write

    async def write(self, mail: StoredMail) -> bytes:
        self.begun.append(mail.id)
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return await self._write(mail)


@pytest.fixture
def slow_writer(post_office: PostOffice, monkeypatch: pytest.MonkeyPatch) -> SlowWriter:
    writer = SlowWriter(post_office)
    monkeypatch.setattr(post_office.writer, "write", writer.write)
    return writer


async def test_a_mail_that_its_template_cannot_make_says_why(
    post_office: PostOffice, mails: RawMails
) -> None:
    broken = await stored(post_office, "Dear {{ name }}")
    with pytest.raises(Conflict, match="text: template-undefined: line 1: 'name' is undefined"):
        await mails.part(reading(broken))


async def test_a_template_that_takes_long_keeps_no_other_owner_waiting(
    post_office: PostOffice, mails: RawMails
) -> None:
    slow, quick = await stored(post_office, LOOPS, owner_id="slow"), mail(owner_id="quick")
    await post_office.accept(quick)
    waiting = [asyncio.create_task(mails.part(reading(slow))) for _ in range(raw.MOST_OF_OWNER)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyAtOnce):
        await mails.part(reading(slow))
    found = await mails.part(reading(quick))
    assert b"Hello reader" in base64.b64decode(found.content)
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()
    assert all(isinstance(each, asyncio.CancelledError) for each in await ended(waiting))
    await post_office.accept(other := mail(owner_id="slow"))
    assert (await mails.part(reading(other), Deadline.after(60))).size > 0


async def test_a_request_behind_another_one_of_its_owner_is_told_so_before_its_deadline(
    post_office: PostOffice, mails: RawMails
) -> None:
    slow, quick = await stored(post_office, LOOPS, owner_id="slow"), mail(owner_id="slow")
    await post_office.accept(quick)
    with pytest.raises(TooManyAtOnce, match="is still being written"):
        await mails.part(reading(slow), Deadline.after(0.1))
    with pytest.raises(TooManyAtOnce, match="Other mails of yours"):
        await mails.part(reading(quick), Deadline.after(0.1))


async def test_a_mail_that_takes_longer_than_a_request_is_written_once_and_answers_a_later_one(
    post_office: PostOffice, mails: RawMails, slow_writer: SlowWriter
) -> None:
    await post_office.accept(one := mail())
    for _ in range(2):
        with pytest.raises(TooManyAtOnce, match="is still being written"):
            await mails.part(reading(one), Deadline.after(0.1))
    slow_writer.may_end.set()
    found = await mails.part(reading(one), Deadline.after(60))
    assert b"Hello reader" in base64.b64decode(found.content)
    assert slow_writer.begun == [one.email_id]


async def test_why_a_mail_cannot_be_built_is_told_to_the_next_request_and_then_it_is_tried_again(
    post_office: PostOffice, mails: RawMails, slow_writer: SlowWriter
) -> None:
    await post_office.accept(one := mail())
    with pytest.raises(TooManyAtOnce):
        await mails.part(reading(one), Deadline.after(0.1))
    slow_writer.error = UnwritableMail("it is too large")
    slow_writer.may_end.set()
    with pytest.raises(Conflict, match="cannot be built: it is too large"):
        await mails.part(reading(one), Deadline.after(60))
    slow_writer.error = None
    assert (await mails.part(reading(one), Deadline.after(60))).size > 0
    assert slow_writer.begun == [one.email_id] * 2


async def test_a_mail_that_waits_for_those_of_others_keeps_its_place_in_the_line(
    post_office: PostOffice, mails: RawMails, slow_writer: SlowWriter
) -> None:
    ones = [mail(owner_id=f"owner-{number}") for number in range(raw.MOST_AT_ONCE)]
    await post_office.accept(*ones, last := mail(owner_id="last"))
    for one in ones:
        with pytest.raises(TooManyAtOnce):
            await mails.part(reading(one), Deadline.after(0.1))
    await until(lambda: len(slow_writer.begun) == len(ones))

    async def waits_for_others() -> bool:
        try:
            await mails.part(reading(last), Deadline.after(0.1))
        except TooManyAtOnce:
            return False
        except Overloaded:
            return True
        return False

    await until(waits_for_others)
    slow_writer.may_end.set()
    assert (await mails.part(reading(last), Deadline.after(60))).size > 0
    assert slow_writer.begun[len(ones) :] == [last.email_id]


async def test_mails_with_uploads_wait_for_each_other_and_no_other_mail_waits_for_them(
    post_office: PostOffice, mails: RawMails, slow_writer: SlowWriter
) -> None:
    ones = [await with_upload(post_office, owner_id) for owner_id in ("ann", "bob", "cid")]
    await post_office.accept(*ones, other := mail(owner_id="dan"))
    waiting = [asyncio.create_task(mails.part(reading(one), Deadline.after(60))) for one in ones]
    await until(lambda: len(slow_writer.begun) == raw.MOST_WITH_UPLOADS)
    waiting.append(asyncio.create_task(mails.part(reading(other), Deadline.after(60))))
    await until(lambda: other.email_id in slow_writer.begun)
    assert slow_writer.begun[raw.MOST_WITH_UPLOADS :] == [other.email_id]
    slow_writer.may_end.set()
    assert all(found.size for found in await asyncio.gather(*waiting))


async def test_owners_of_mails_that_take_long_have_a_bounded_number_of_them_begun(
    post_office: PostOffice, slow_writer: SlowWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "MOST_BEGUN", 2)
    mails = RawMails(post_office.postgres, senders(), post_office.preparation)
    ones = [mail(owner_id=f"owner-{number}") for number in range(2)]
    await post_office.accept(*ones, last := mail(owner_id="last"))
    waiting = [asyncio.create_task(mails.part(reading(one), Deadline.after(60))) for one in ones]
    await until(lambda: len(slow_writer.begun) == 2)
    with pytest.raises(Overloaded, match="may have 2 mails that are written for display"):
        await mails.part(reading(last), Deadline.after(60))
    slow_writer.may_end.set()
    assert all(found.size for found in await asyncio.gather(*waiting))
    assert (await mails.part(reading(last), Deadline.after(60))).size > 0


async def test_a_stop_ends_mails_that_are_being_written_and_tells_those_who_wait(
    post_office: PostOffice, slow_writer: SlowWriter
) -> None:
    mails = RawMails(post_office.postgres, senders(), post_office.preparation)
    running = asyncio.create_task(mails.run())
    await post_office.accept(one := mail())
    waiting = asyncio.create_task(mails.part(reading(one), Deadline.after(60)))
    await until(lambda: slow_writer.begun)
    await supervision.end([running])
    with pytest.raises(Unavailable, match="is stopping"):
        await waiting
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("raw mail")] == []


async def ended(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_mail_is_kept_for_the_parts_that_follow(
    post_office: PostOffice, mails: RawMails, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Any] = []
    write = post_office.writer.write

    async def noted(mail: Any) -> bytes:
        rendered.append(mail.id)
        return await write(mail)

    monkeypatch.setattr(post_office.writer, "write", noted)
    ones = [mail(owner_id=owner_id) for owner_id in ("a", "b")]
    await post_office.accept(*ones)
    for one in ones * 2:
        await mails.part(reading(one))
    assert rendered == [one.email_id for one in ones]


async def test_a_rendering_that_comes_late_brings_no_removed_content_back(post_office: PostOffice) -> None:
    one = await stored(post_office, "Secret")
    async with post_office.postgres.connection() as connection:
        [read] = (await repository.read_mails(connection, [one.email_id])).values()
        await connection.execute("UPDATE emails SET stripped = 2, template_data = NULL, text_body = NULL")
        await post_office.preparation.fill(read)
        assert await connection.fetchval("SELECT text_body FROM emails") is None


async def test_the_text_of_long_html_is_kept_unless_its_content_was_removed(
    post_office: PostOffice, mails: RawMails
) -> None:
    one, other = (mail(text=None, html="<p>Hello, <b>Ann</b></p>" * 1000) for _ in range(2))
    await post_office.accept(one, other)
    async with post_office.postgres.connection() as connection:
        texts = await connection.fetch("SELECT text_body FROM emails")
        assert [row["text_body"] for row in texts] == [None, None]
        await mails.part(reading(one))
        text = await connection.fetchval("SELECT text_body FROM emails WHERE id = $1", one.email_id)
        assert text.startswith("Hello, Ann")
        [read] = (await repository.read_mails(connection, [other.email_id])).values()
        await connection.execute("UPDATE emails SET stripped = 2, text_body = NULL, html_body = NULL")
        await post_office.preparation.fill(read)
        assert await connection.fetchval("SELECT text_body FROM emails WHERE id = $1", other.email_id) is None
