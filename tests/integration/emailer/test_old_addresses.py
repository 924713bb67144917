"""Addresses that the release before stored with a domain in Unicode are found by the form of today."""

from __future__ import annotations

from uuid import UUID

import email_validator
import pytest

from chassis import migrations
from chassis.broker.envelope import new_id
from contracts import addresses
from support.doubles.post_office import OWNER, PostOffice, mail

# In many scripts; labels of ASCII stand beside others, and one label has several letters beyond ASCII.
DOMAINS = (
    "exämple.com",
    "mail.exämple.com",
    "bücher-größe.example",
    "пример.рф",
    "παράδειγμα.ελ",
    "例え.テスト.example",
    "예시.한국",
    "उदाहरण.भारत",
    "מבחן.קום",
    "ñandú.ñ.example",
    "ä" * 40 + ".example",
    "abcäöüßdefghij-klmn.example",
)


def stored_before(domain: str) -> str:
    """Return an address with this domain as the release before stored it."""
    found = email_validator.validate_email(f"jörg@{domain}", check_deliverability=False)
    assert not found.domain.isascii()
    return f"{found.local_part}@{found.domain}".lower()


async def migrate(post_office: PostOffice) -> None:
    migration = next(one for one in migrations.collect("emailer") if one.name.startswith("0021"))
    async with post_office.postgres.connection() as connection:
        await connection.execute(migration.sql)


async def suppress(post_office: PostOffice, address: str, *, owner_id: str = OWNER) -> UUID:
    id_ = new_id()
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO suppressions (id, owner_id, address, stream, origin, reason)"
            " VALUES ($1, $2, $3, 'all', 'manual', '')",
            *(id_, owner_id, address),
        )
        await connection.execute(
            "INSERT INTO address_failures (owner_id, address, stream, email_id, kind, origin)"
            " VALUES ($1, $2, 'all', $3, 'hard', 'reply')",
            *(owner_id, address, UUID(int=1)),
        )
    return id_


async def stored(post_office: PostOffice, table: str) -> list[str]:
    async with post_office.postgres.connection() as connection:
        return [
            row["address"] for row in await connection.fetch(f"SELECT address FROM {table} ORDER BY address")
        ]


async def test_every_domain_is_written_as_the_library_writes_it(post_office: PostOffice) -> None:
    plain = "ann@example.com"
    before = [stored_before(domain) for domain in DOMAINS]
    for address in (*before, plain):
        await suppress(post_office, address)
    await migrate(post_office)
    wanted = sorted([*(addresses.parse(address).comparable for address in before), plain])
    assert await stored(post_office, "suppressions") == wanted
    assert await stored(post_office, "address_failures") == wanted


async def test_an_address_that_was_suppressed_before_gets_no_mail(post_office: PostOffice) -> None:
    await suppress(post_office, stored_before("exämple.com"))
    await migrate(post_office)
    command = mail(to=["Jörg@exämple.com"])
    await post_office.accept(command)
    assert (await post_office.read(command)).status == "suppressed"


@pytest.mark.parametrize("is_newer_first", [True, False])
async def test_an_address_that_was_suppressed_in_both_forms_is_suppressed_once(
    post_office: PostOffice, is_newer_first: bool
) -> None:
    old = stored_before("exämple.com")
    new = addresses.parse(old).comparable
    made = {
        address: await suppress(post_office, address)
        for address in sorted((old, new), reverse=is_newer_first)
    }
    await suppress(post_office, old, owner_id="another")
    await migrate(post_office)
    assert await stored(post_office, "suppressions") == [new, new]
    assert await stored(post_office, "address_failures") == [new, new]
    async with post_office.postgres.connection() as connection:
        kept = await connection.fetchval("SELECT id FROM suppressions WHERE owner_id = $1", OWNER)
    assert kept == made[new]


async def test_older_mails_have_their_recipients_in_the_new_form(post_office: PostOffice) -> None:
    command = mail(to=["jörg@exämple.com", "ann@example.com"])
    await post_office.accept(command)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE recipients SET address = 'jörg@exämple.com' WHERE email_id = $1 AND position = 0",
            command.email_id,
        )
    await migrate(post_office)
    email = await post_office.read(command)
    assert [one.address for one in email.recipients] == ["jörg@xn--exmple-cua.com", "ann@example.com"]
