"""The owner sees a mail as it is handed over, or the reason why not, and nobody waits for others."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from chassis.deadlines import Deadline
from chassis.errors import Conflict, TooManyAtOnce
from contracts.emails import GetRawEmail, SendEmail
from contracts.templates import SaveTemplate, TemplateSource
from emailer.mails import repository
from emailer.sending import raw
from emailer.sending.raw import RawMails
from emailer.templates.answers import TemplateAnswers
from support.doubles.post_office import OWNER, PostOffice, mail, senders

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


def reading(command: SendEmail) -> GetRawEmail:
    return GetRawEmail(email_id=command.email_id, owner_id=command.owner_id)


@pytest.fixture
def mails(post_office: PostOffice) -> RawMails:
    return RawMails(post_office.postgres, senders(), post_office.preparation)


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
    assert (await mails.part(reading(other))).size > 0


async def test_a_request_behind_another_one_of_its_owner_is_told_so_before_its_deadline(
    post_office: PostOffice, mails: RawMails
) -> None:
    slow = await stored(post_office, LOOPS, owner_id="slow")
    first = asyncio.create_task(mails.part(reading(slow)))
    await asyncio.sleep(0)
    with pytest.raises(TooManyAtOnce, match="Other mails of yours"):
        await mails.part(reading(slow), Deadline.after(0.1))
    first.cancel()
    await ended([first])


async def ended(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_last_mail_of_each_owner_is_kept_for_the_parts_that_follow(
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
