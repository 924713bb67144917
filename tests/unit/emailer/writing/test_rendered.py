"""A mail in hand is rendered once, for all its recipients."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chassis.errors import DatabaseUnavailable, Overloaded
from contracts.parsed_addresses import ParsedAddress
from emailer.errors import TemplateFailed
from emailer.mails.letters import File, FilledTemplate, Letter
from emailer.mails.stored_mail import Signer, StoredMail
from emailer.writing import rendering
from emailer.writing.rendered import RenderedMails
from emailer.writing.writer import LIGHT_BYTES

SIGNER = Signer("example.com", "s1", "ed25519", b"")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def mail(**parts: str | None) -> StoredMail:
    letter = Letter(ParsedAddress("", "a@example.com"), "Hello", **parts)  # type: ignore[arg-type]  # texts only
    return StoredMail(uuid4(), "o", letter, NOW, None, NOW, 20, None, None)


async def as_it_is(mail: StoredMail) -> StoredMail:
    return mail


def with_upload(owner_id: str = "o") -> StoredMail:
    letter = Letter(
        ParsedAddress("", "a@example.com"),
        "Hello",
        text="Look",
        files=(File("a.pdf", "application/pdf", b"", upload_id=uuid4()),),
    )
    return StoredMail(uuid4(), owner_id, letter, NOW, None, NOW, 20, None, None)


async def written(mail: StoredMail) -> bytes:
    assert mail.letter is not None
    return rendering.render(mail.letter, identity="<1@example.com>", at=NOW)


async def test_twenty_recipients_share_one_rendering() -> None:
    writings: list[StoredMail] = []

    async def noted(mail: StoredMail) -> bytes:
        writings.append(mail)
        return await written(mail)

    rendered, large = RenderedMails(as_it_is, as_it_is, noted), mail(text="x" * 100_000)
    for _ in range(20):
        rendered.hold(large)
    found = await asyncio.gather(*(rendered.content(large) for _ in range(20)))
    assert len(writings) == 1
    assert all(content is found[0] for content in found)


async def test_a_mail_that_is_to_be_signed_is_written_before_its_turn() -> None:
    writings: list[StoredMail] = []

    async def noted(mail: StoredMail) -> bytes:
        writings.append(mail)
        return await written(mail)

    rendered = RenderedMails(as_it_is, as_it_is, noted)
    signed = replace(mail(text="Look"), signers=(SIGNER,))
    assert signed.letter is not None
    template = replace(signed.letter, template=FilledTemplate("a", 1, "{}"))
    others = (
        mail(text="Look"),
        replace(signed, id=uuid4(), letter=template),
        replace(mail(text="x" * LIGHT_BYTES), signers=(SIGNER,)),
        replace(with_upload(), signers=(SIGNER,)),
    )
    for each in (signed, *others):
        rendered.hold(each)
        rendered.sign_ahead(each)
    rendered.sign_ahead(signed)
    await asyncio.sleep(0)
    assert writings == [signed]
    assert b"Look" in await rendered.content(signed)
    assert writings == [signed]


@pytest.mark.parametrize("recipients", [1, 20])
async def test_a_mail_that_could_not_be_signed_ahead_is_written_anew_at_its_turn(recipients: int) -> None:
    fails = [True]

    async def once(mail: StoredMail) -> bytes:
        if fails:
            fails.pop()
            raise ValueError("no key")
        return await written(mail)

    rendered = RenderedMails(as_it_is, as_it_is, once)
    signed = replace(mail(text="Look"), signers=(SIGNER,), recipient_count=recipients)
    rendered.hold(signed)
    rendered.sign_ahead(signed)
    with pytest.raises(ValueError, match="no key"):
        await rendered.content(signed)
    assert b"Look" in await rendered.content(signed)


async def test_a_rendered_mail_is_dropped_after_its_last_recipient() -> None:
    rendered, one, other = (
        RenderedMails(as_it_is, as_it_is, written),
        mail(text="x" * 1000),
        mail(text="y" * 3000),
    )
    for each in (one, one, other):
        rendered.hold(each)
    first = await rendered.content(one)
    rendered.release(one)
    assert await rendered.content(one) is first
    assert rendered.held_bytes == {"o": 2 * (1500 + 3500)}
    rendered.release(one)
    rendered.release(other)
    assert not rendered.held_bytes
    rendered.hold(one)
    assert await rendered.content(one) is not first


async def test_a_caller_that_is_cancelled_leaves_the_rendering_to_the_others() -> None:
    rendered, large = RenderedMails(as_it_is, as_it_is, written), mail(text="x" * 100_000)
    rendered.hold(large)
    first = asyncio.create_task(rendered.content(large))
    second = asyncio.create_task(rendered.content(large))
    await asyncio.sleep(0)
    first.cancel()
    assert b"Subject: Hello" in await second


async def test_bytes_that_are_forgotten_are_fetched_again() -> None:
    rendered, one = RenderedMails(as_it_is, as_it_is, written), with_upload()
    rendered.hold(one)
    first = await rendered.content(one)
    rendered.forget(one.id)
    again = await rendered.content(one)
    assert (again, again is first) == (first, False)
    assert rendered.release(one)


async def test_a_template_that_takes_long_delays_no_large_mail_of_others() -> None:
    rendering = asyncio.Event()

    async def fill(mail: StoredMail) -> StoredMail:
        if mail.owner_id == "slow":
            await rendering.wait()
            raise TemplateFailed("template-too-slow", "it takes more than 2 s")
        return mail

    rendered = RenderedMails(fill, as_it_is, written)
    slow, quick = with_upload("slow"), with_upload("quick")
    for each in (slow, quick):
        rendered.hold(each)
    waiting = asyncio.create_task(rendered.content(slow))
    await asyncio.sleep(0)
    assert b"Hello" in await rendered.content(quick)
    rendering.set()
    with pytest.raises(TemplateFailed):
        await waiting


async def test_a_large_mail_whose_turn_does_not_come_is_put_off_and_the_next_one_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("emailer.writing.rendered.LARGE_WITHIN_S", 0.05)
    is_attached = asyncio.Event()

    async def attach(mail: StoredMail) -> StoredMail:
        if mail.owner_id == "slow":
            await is_attached.wait()
        return mail

    rendered = RenderedMails(as_it_is, attach, written)
    slow, late = with_upload("slow"), with_upload("late")
    for each in (slow, late):
        rendered.hold(each)
    first = asyncio.create_task(rendered.content(slow))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="large mails"):
        await rendered.content(late)
    # The one whose turn it is has no such deadline: what it waits for has one of its own.
    is_attached.set()
    assert b"Hello" in await first
    assert b"Hello" in await rendered.content(late)


async def test_a_mail_that_could_not_be_prepared_is_tried_anew() -> None:
    fails = [True]

    async def prepare(mail: StoredMail) -> StoredMail:
        if fails.pop():
            raise DatabaseUnavailable
        return mail

    rendered, one = RenderedMails(as_it_is, prepare, written), with_upload()
    rendered.hold(one)
    with pytest.raises(DatabaseUnavailable):
        await rendered.content(one)
    fails.append(False)
    assert b"Hello" in await rendered.content(one)
