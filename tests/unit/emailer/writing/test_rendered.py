"""A mail in hand is rendered once, for all its recipients, and not on the event loop when it is large."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chassis.errors import DatabaseUnavailable
from contracts.addresses import ParsedAddress
from emailer.errors import NoRoomForUploads
from emailer.sending.attempts import StoredMail
from emailer.writing import rendering
from emailer.writing.letters import File, Letter
from emailer.writing.rendered import RenderedMails

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


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread of each rendering."""
    used: list[int] = []
    render = rendering.render

    def noted(letter: Letter, *, identity: str, at: datetime) -> bytes:
        used.append(threading.get_ident())
        return render(letter, identity=identity, at=at)

    monkeypatch.setattr(rendering, "render", noted)
    return used


async def test_twenty_recipients_share_one_rendering(threads: list[int]) -> None:
    rendered, large = RenderedMails(as_it_is), mail(text="x" * 100_000)
    for _ in range(20):
        rendered.hold(large)
    found = await asyncio.gather(*(rendered.content(large) for _ in range(20)))
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    assert all(content is found[0] for content in found)


async def test_html_without_a_text_is_never_read_on_the_event_loop(threads: list[int]) -> None:
    rendered, html = RenderedMails(as_it_is), mail(html="<!--" * 1000)
    rendered.hold(html)
    await rendered.content(html)
    assert threads
    assert threads[0] != threading.get_ident()


async def test_a_rendered_mail_is_dropped_after_its_last_recipient() -> None:
    rendered, one, other = RenderedMails(as_it_is), mail(text="x" * 1000), mail(text="y" * 3000)
    for each in (one, one, other):
        rendered.hold(each)
    first = await rendered.content(one)
    rendered.release(one.id)
    assert await rendered.content(one) is first
    assert rendered.held_bytes == 2 * (1500 + 3500)
    rendered.release(one.id)
    rendered.release(other.id)
    assert rendered.held_bytes == 0
    rendered.hold(one)
    assert await rendered.content(one) is not first


async def test_a_caller_that_is_cancelled_leaves_the_rendering_to_the_others() -> None:
    rendered, large = RenderedMails(as_it_is), mail(text="x" * 100_000)
    rendered.hold(large)
    first = asyncio.create_task(rendered.content(large))
    second = asyncio.create_task(rendered.content(large))
    await asyncio.sleep(0)
    first.cancel()
    assert b"Subject: Hello" in await second


async def test_an_owner_has_one_mail_with_uploads_in_memory_and_all_have_two() -> None:
    rendered = RenderedMails(as_it_is)
    first, second = with_upload(), with_upload()
    others = [with_upload("p"), with_upload("q")]
    for each in (first, first, second, *others):
        rendered.hold(each)
    await rendered.content(first)
    with pytest.raises(NoRoomForUploads):
        await rendered.content(second)
    assert b"Hello" in await rendered.content(others[0])
    with pytest.raises(NoRoomForUploads):
        await rendered.content(others[1])
    rendered.release(first.id)
    # Its other recipient still needs the bytes.
    assert b"Hello" in await rendered.content(first)
    rendered.release(first.id)
    assert b"Hello" in await rendered.content(second)


async def test_a_mail_that_could_not_be_prepared_is_tried_anew_and_holds_no_room() -> None:
    fails = [True]

    async def prepare(mail: StoredMail) -> StoredMail:
        if fails.pop():
            raise DatabaseUnavailable
        return mail

    rendered, one = RenderedMails(prepare), with_upload()
    rendered.hold(one)
    with pytest.raises(DatabaseUnavailable):
        await rendered.content(one)
    fails.append(False)
    assert b"Hello" in await rendered.content(one)
