"""Written mails are kept for the requests that follow, within bytes of each owner and in all."""

from __future__ import annotations

from uuid import UUID

import pytest

from emailer.sending import written_mails
from emailer.sending.written_mails import WrittenMails
from support.waiting import until

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_mails, "MOST_BYTES", 100)
    monkeypatch.setattr(written_mails, "MOST_BYTES_OF_OWNER", 40)


@pytest.mark.usefixtures("_small")
async def test_an_owner_beyond_its_bytes_loses_its_own_mails_and_nobody_elses() -> None:
    mails = WrittenMails()
    mails.keep("ann", ONE, b"a" * 40)
    for email_id in (ONE, TWO, THREE):
        mails.keep("bob", email_id, b"b" * 20)
    assert mails.find("ann", ONE) == b"a" * 40
    assert [mails.find("bob", email_id) is None for email_id in (ONE, TWO, THREE)] == [True, False, False]
    assert mails.kept_bytes == 80


@pytest.mark.usefixtures("_small")
async def test_beyond_the_bytes_of_all_owners_what_was_asked_for_the_longest_ago_goes() -> None:
    mails = WrittenMails()
    for owner_id in ("ann", "bob", "cid"):
        mails.keep(owner_id, ONE, b"x" * 30)
    assert mails.find("ann", ONE)
    mails.keep("dan", ONE, b"x" * 30)
    assert [bool(mails.find(owner_id, ONE)) for owner_id in ("ann", "bob", "cid", "dan")] == [
        True,
        False,
        True,
        True,
    ]
    assert mails.kept_bytes == 90


@pytest.mark.usefixtures("_small")
async def test_the_newest_mail_is_kept_however_large_it_is() -> None:
    mails = WrittenMails()
    mails.keep("ann", ONE, b"a")
    mails.keep("bob", ONE, b"b" * 1000)
    assert (mails.find("ann", ONE), mails.kept_bytes) == (None, 1000)
    assert mails.find("bob", ONE)


async def test_an_owner_has_a_bounded_number_of_mails() -> None:
    mails = WrittenMails()
    for number in range(10 * written_mails.MOST_OF_OWNER):
        mails.keep("ann", UUID(int=number), b"x")
    assert mails.kept_bytes == written_mails.MOST_OF_OWNER


async def test_a_mail_that_nobody_has_asked_for_lately_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_mails, "KEPT_S", -1.0)
    mails = WrittenMails()
    mails.keep("ann", ONE, b"x")
    await until(lambda: mails.kept_bytes == 0)
