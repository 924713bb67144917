"""DKIM keys on a real database and DNS server: signed mails, rotation, and how the keys are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dkim
import pytest

from chassis import shares, threads
from chassis.broker.envelope import new_id
from chassis.errors import Conflict, NotFound
from contracts.domains import Domain, RotateDkim
from emailer.domains import sealing
from emailer.domains.answers import MOST_KEYS
from emailer.domains.keys import KeySafe
from emailer.errors import DomainChangedMeanwhile, NoSecretsKey
from support.busy_threads import busy_threads
from support.doubles import dns
from support.doubles.post_office import OWNER, PostOffice, mail
from support.doubles.registrar import FROM_ACME, LATER, Registrar, registrar_of, terms
from support.waiting import until


@pytest.fixture
async def registrar(post_office: PostOffice) -> AsyncIterator[Registrar]:
    async with dns.running() as server:
        yield registrar_of(post_office, server)


async def test_a_mail_leaves_with_two_signatures_that_receivers_take(registrar: Registrar) -> None:
    await registrar.verified()
    unsubscribe = {
        "List-Unsubscribe": "<https://acme.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    command = mail(sender=FROM_ACME, to=["a@example.com", "b@example.com"], headers=unsubscribe)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms()):
        await registrar.office.reaches(command, "delivered")
    contents = {received.content for received in registrar.office.server.received}
    assert len(contents) == 1
    (content,) = contents
    message = dkim.DKIM(content)
    assert content.count(b"DKIM-Signature:") == 2
    assert all(message.verify(idx=number, dnsfunc=registrar.dns.text) for number in range(2))


async def test_an_owner_that_waits_for_its_thread_keeps_nobody_else_from_new_keys(
    registrar: Registrar,
) -> None:
    async def create(name: str, owner_id: str) -> Domain:
        shares.current.set(owner_id)
        return await registrar.create(name, owner_id)

    async with busy_threads("a"):
        waiting = asyncio.create_task(create("a.example", "a"))
        await until(lambda: threads.of_process().turns.held_by("a") == 2)
        assert (await asyncio.create_task(create("b.example", "b"))).dkim
        assert not waiting.done()
    assert (await waiting).dkim


async def test_the_keys_of_a_domain_that_the_operator_has_named_sign_for_everybody(
    registrar: Registrar,
) -> None:
    await registrar.verified(owner_id="operator")
    command = mail(sender=FROM_ACME)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms("acme.example")):
        await registrar.office.reaches(command, "delivered")
    assert registrar.office.server.received[0].content.count(b"DKIM-Signature:") == 2


async def test_where_all_may_send_as_anybody_nobody_signs_for_another(registrar: Registrar) -> None:
    await registrar.verified(owner_id="2")
    command = mail(sender=FROM_ACME)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms("")):
        await registrar.office.reaches(command, "delivered")
    assert b"DKIM-Signature:" not in registrar.office.server.received[0].content


async def test_a_mail_whose_key_cannot_be_read_waits_unsent(registrar: Registrar) -> None:
    await registrar.verified()
    command = mail(sender=FROM_ACME)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms(safe=KeySafe("another secret, a wrong one"))):
        found = await registrar.office.reaches(command, "deferred")
    assert "EMAIL_SECRETS_KEY" in found.recipients[0].attempts[0].smtp_reply
    assert registrar.office.server.received == []


async def test_keys_rotate_with_an_overlap(registrar: Registrar) -> None:
    domain = await registrar.verified()
    rotate = RotateDkim(domain_id=domain.id, owner_id=OWNER, version=domain.version, request_key="r")
    rotated = await registrar.answers.rotate(rotate, LATER)
    assert sorted(key.state for key in rotated.dkim) == ["active", "active", "pending", "pending"]
    assert (await registrar.answers.rotate(rotate, LATER)).version == rotated.version
    with pytest.raises(DomainChangedMeanwhile):
        await registrar.answers.rotate(rotate.model_copy(update={"request_key": "s"}), LATER)
    # The new records are not there yet: the old keys sign.
    assert sorted(key.state for key in (await registrar.verify(domain)).dkim)[:2] == ["active", "active"]
    registrar.dns.follow(rotated.records)
    turned = await registrar.verify(domain)
    old = {key.selector for key in domain.dkim}
    assert {key.selector: key.state for key in turned.dkim} == {
        key.selector: "retiring" if key.selector in old else "active" for key in rotated.dkim
    }
    command = mail(sender=FROM_ACME)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms()):
        await registrar.office.reaches(command, "delivered")
    content = registrar.office.server.received[0].content
    assert not any(selector.encode() in content for selector in old)


class NoKeys(KeySafe):
    """Fails a test in which keys are made."""

    def seal(self, private: bytes) -> bytes:
        raise AssertionError("keys were made")


async def test_no_keys_are_made_for_a_domain_that_may_not_be_rotated(registrar: Registrar) -> None:
    domain = await registrar.create()
    strict = registrar_of(registrar.office, registrar.dns, safe=NoKeys("a secret for the tests")).answers
    with pytest.raises(NotFound):
        await strict.rotate(RotateDkim(domain_id=new_id(), owner_id=OWNER), LATER)
    with pytest.raises(NotFound):
        await strict.rotate(RotateDkim(domain_id=domain.id, owner_id="2"), LATER)
    with pytest.raises(DomainChangedMeanwhile):
        await strict.rotate(RotateDkim(domain_id=domain.id, owner_id=OWNER, version=7), LATER)


async def test_keys_whose_records_were_never_set_are_replaced(registrar: Registrar) -> None:
    domain = await registrar.create()
    for _ in range(3):
        domain = await registrar.answers.rotate(RotateDkim(domain_id=domain.id, owner_id=OWNER), LATER)
    assert len(domain.dkim) == 2


async def test_a_domain_has_a_bounded_number_of_keys(registrar: Registrar) -> None:
    domain = await registrar.create()
    async with registrar.office.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO domain_keys (domain_id, selector, algorithm, state, sealed_key, public_record)"
            " SELECT $1, 'old' || n, 'rsa', 'retiring', '', '' FROM generate_series(1, $2::int) AS n",
            domain.id,
            MOST_KEYS - 1,
        )
    with pytest.raises(Conflict, match="wait"):
        await registrar.answers.rotate(RotateDkim(domain_id=domain.id, owner_id=OWNER), LATER)


async def test_without_the_secret_a_domain_has_no_keys(registrar: Registrar) -> None:
    bare = registrar_of(registrar.office, registrar.dns, safe=None)
    domain = await bare.create()
    assert domain.dkim == []
    with pytest.raises(NoSecretsKey, match="EMAIL_SECRETS_KEY"):
        await bare.answers.rotate(RotateDkim(domain_id=domain.id, owner_id=OWNER), LATER)


async def test_private_keys_are_stored_encrypted_and_encrypted_anew_after_a_rotation(
    registrar: Registrar,
) -> None:
    await registrar.create()
    renewed = KeySafe("the next secret of the tests", "a secret for the tests")
    await sealing.renew(registrar.office.postgres, renewed)
    async with registrar.office.postgres.connection() as connection:
        rows = await connection.fetch("SELECT sealed_key FROM domain_keys")
    assert len(rows) == 2
    for row in rows:
        assert b"\x30\x82" not in row["sealed_key"]
        assert KeySafe("the next secret of the tests").open(row["sealed_key"])
