"""The rights of senders, looked up on a real database and cached."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from chassis.broker.envelope import new_id
from chassis.postgres import Connection
from contracts import addresses
from emailer.domains import senders as rights
from emailer.mails.letters import Letter
from emailer.mails.stored_mail import StoredMail
from support.doubles.post_office import PostOffice, senders

NOW = datetime.now(UTC)


def mails_of(owner_id: str, *domains: str) -> dict[UUID, StoredMail]:
    letters = (Letter(addresses.parse(f"a@{domain}"), "Hello") for domain in domains)
    mails = [StoredMail(new_id(), owner_id, letter, NOW, None, NOW, 1, None, None) for letter in letters]
    return {mail.id: mail for mail in mails}


async def test_what_is_forgotten_for_other_mails_is_still_known_to_those_that_asked_before(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "MOST_KNOWN", 1)
    looked_up, known, unknown = senders(), mails_of("ann", "known.example"), mails_of("ann", "new.example")
    async with post_office.postgres.connection() as one, post_office.postgres.connection() as another:
        await looked_up.identify(one, known)
        asked = [asyncio.create_task(looked_up.identify(one, known | unknown))]
        # It waits for the database when others need the room in the cache.
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(looked_up.identify(another, mails_of("bob", "bob.example"))))
        found, _ = await asyncio.gather(*asked)
    assert found == known | unknown


async def test_however_many_domains_an_owner_sends_from_those_of_others_stay_known(
    post_office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "MOST_KNOWN", 10)
    monkeypatch.setattr(rights, "MOST_OF_OWNER", 5)
    looked_up, known = senders(), mails_of("ann", "known.example")
    async with post_office.postgres.connection() as connection:
        await looked_up.identify(connection, known)
        for number in range(20):
            await looked_up.identify(connection, mails_of("bob", f"d{number}.example"))
    # Nothing has to be asked for.
    assert await looked_up.identify(cast(Connection, None), known) == known
