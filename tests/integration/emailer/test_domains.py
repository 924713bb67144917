"""Sender domains on a real database and DNS server: proof, keys, signed mails, refused mails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import dkim
import pytest

from chassis import metrics
from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound, Overloaded
from contracts.domains import (
    CreateDomain,
    DeleteDomain,
    Domain,
    GetDomain,
    ListDomains,
    RotateDkim,
    VerifyDomain,
)
from emailer.domains import repository, sealing
from emailer.domains.answers import MOST_KEYS, DomainAnswers
from emailer.domains.checking import MOST_OF_OWNER, DomainChecks
from emailer.domains.keys import KeySafe
from emailer.domains.lookups import DnsLookups, read_servers
from emailer.domains.progress import CheckSchedule
from emailer.domains.records import RecordSettings
from emailer.errors import DomainChangedMeanwhile, DomainExists, NoSecretsKey, TooManyDomains
from support.doubles import dns
from support.doubles.dns import DnsServer
from support.doubles.post_office import OWNER, PostOffice, Terms, mail, senders

SAFE = KeySafe("a secret for the tests")
LATER = Deadline.after(60)
RELAY = RecordSettings("include:spf.relay.example", "bounces.relay.example")
FROM_ACME = "Acme <orders@acme.example>"


@dataclass
class Registrar:
    """The part of the service that keeps domains, beside a DNS server and a relay."""

    office: PostOffice
    dns: DnsServer
    answers: DomainAnswers
    checks: DomainChecks
    announced: list[bool]

    async def create(self, name: str = "acme.example", owner_id: str = OWNER, **fields: Any) -> Domain:
        request = CreateDomain(domain_id=new_id(), owner_id=owner_id, name=name, **fields)
        return await self.answers.create(request, LATER)

    async def verify(self, domain: Domain, owner_id: str = OWNER) -> Domain:
        async with self.office.postgres.connection() as connection:
            # As if the last look had been a while ago.
            await connection.execute("UPDATE domains SET checked_at = checked_at - interval '1 minute'")
        return await self.answers.verify(VerifyDomain(domain_id=domain.id, owner_id=owner_id), LATER)

    async def verified(self, name: str = "acme.example", owner_id: str = OWNER) -> Domain:
        domain = await self.create(name, owner_id)
        self.dns.follow(domain.records)
        return await self.verify(domain, owner_id)


def registrar_of(
    office: PostOffice, server: DnsServer, *, safe: KeySafe | None = SAFE, most: int = 50
) -> Registrar:
    announced: list[bool] = []
    checks = DomainChecks(
        office.postgres,
        DnsLookups(read_servers(server.address), deadline_s=0.5),
        RELAY,
        CheckSchedule(),
        announced=lambda: announced.append(True),
    )
    answers = DomainAnswers(
        office.postgres,
        checks,
        safe,
        RELAY,
        most_of_owner=most,
        announced=lambda: announced.append(True),
    )
    return Registrar(office, server, answers, checks, announced)


@pytest.fixture
async def registrar(post_office: PostOffice) -> AsyncIterator[Registrar]:
    async with dns.running() as server:
        yield registrar_of(post_office, server)


def terms(allowed: str = "none", safe: KeySafe | None = SAFE) -> Terms:
    return Terms(senders=lambda: senders(allowed, safe))


def states(domain: Domain) -> dict[str, str]:
    return {record.purpose: record.state for record in domain.records}


async def test_a_domain_is_verified_once_its_records_are_found(registrar: Registrar) -> None:
    made = await registrar.create("Acme.Example")
    assert (made.name, made.status, made.version) == ("acme.example", "pending", 1)
    assert set(states(made).values()) == {"unchecked"}
    assert {key.state for key in made.dkim} == {"pending"}
    assert made.return_path_host == "bounces.acme.example"
    assert made.next is not None
    nothing = await registrar.verify(made)
    assert (nothing.status, set(states(nothing).values())) == ("pending", {"missing"})
    registrar.dns.follow(made.records)
    found = await registrar.verify(made)
    assert (found.status, set(states(found).values())) == ("verified", {"found"})
    assert {key.state for key in found.dkim} == {"active"}
    (event,) = await registrar.office.events()
    assert (event["name"], event["is_verified"], event["version"]) == ("acme.example", True, found.version)
    assert registrar.announced == [True]


async def test_each_owner_sees_and_proves_their_own(registrar: Registrar) -> None:
    mine = await registrar.verified()
    theirs = await registrar.create(owner_id="2")
    # What shows my ownership does not show theirs.
    assert (await registrar.verify(theirs, "2")).status == "pending"
    for ask in (registrar.answers.get(GetDomain(domain_id=mine.id, owner_id="2"), LATER),
                registrar.answers.verify(VerifyDomain(domain_id=mine.id, owner_id="2"), LATER),
                registrar.answers.rotate(RotateDkim(domain_id=mine.id, owner_id="2"), LATER),
                registrar.answers.delete(DeleteDomain(domain_id=mine.id, owner_id="2"), LATER)):  # fmt: skip
        with pytest.raises(NotFound):
            await ask
    page = await registrar.answers.list(ListDomains(owner_id="2"), LATER)
    assert [domain.id for domain in page.data] == [theirs.id]


async def test_a_request_makes_one_domain_and_a_name_stands_once(registrar: Registrar) -> None:
    first = await registrar.create(request_key="k")
    assert (await registrar.create(request_key="k")).id == first.id
    with pytest.raises(DomainExists, match="already"):
        await registrar.create(request_key="another")
    few = registrar_of(registrar.office, registrar.dns, most=1)
    with pytest.raises(TooManyDomains):
        await few.create("second.example")


async def test_a_page_is_newest_first_and_leads_to_the_next(registrar: Registrar) -> None:
    made = [await registrar.create(f"d{number}.example") for number in range(3)]
    page = await registrar.answers.list(ListDomains(owner_id=OWNER, limit=2), LATER)
    assert [domain.id for domain in page.data] == [made[2].id, made[1].id]
    rest = await registrar.answers.list(ListDomains(owner_id=OWNER, limit=2, before=page.next_cursor), LATER)
    assert ([domain.id for domain in rest.data], rest.next_cursor) == ([made[0].id], None)
    named = await registrar.answers.list(ListDomains(owner_id=OWNER, name="d1.example"), LATER)
    assert [domain.id for domain in named.data] == [made[1].id]


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


async def test_a_mail_from_a_domain_that_is_not_verified_fails_and_hurts_no_other(
    registrar: Registrar,
) -> None:
    await registrar.verified(owner_id="2")
    mails = {
        "not verified": mail(sender="a@other.example"),
        "somebody else's": mail(sender=FROM_ACME),
        "a subdomain": mail(owner_id="2", sender="a@news.acme.example"),
        "the owner's": mail(owner_id="2", sender=FROM_ACME),
        "the default": mail(),
        "named by ops": mail(sender="a@shared.example"),
    }
    await registrar.office.accept(*mails.values())
    async with registrar.office.delivering(terms("shared.example")):
        for name, status in zip(mails, ("failed",) * 3 + ("delivered",) * 3, strict=True):
            await registrar.office.reaches(mails[name], status)
    (recipient,) = (await registrar.office.read(mails["not verified"])).recipients
    (attempt,) = recipient.attempts
    assert attempt.host == ""
    assert attempt.smtp_reply.startswith("not sent: sender-not-allowed: other.example")
    assert len(registrar.office.server.received) == 3


async def test_the_keys_of_a_domain_that_ops_have_named_sign_for_everybody(registrar: Registrar) -> None:
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


async def test_what_is_due_is_looked_at_one_domain_of_each_owner_at_a_time(registrar: Registrar) -> None:
    mine = [await registrar.create(f"d{number}.example") for number in range(3)]
    theirs = await registrar.create(owner_id="2")
    registrar.dns.follow(theirs.records)
    assert await registrar.checks.look() == 0
    async with registrar.office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE domains SET check_at = now() - interval '1 hour' + random() * interval '1 s'"
        )
    assert await registrar.checks.look() == 2
    assert (
        await registrar.answers.get(GetDomain(domain_id=theirs.id, owner_id="2"), LATER)
    ).status == "verified"
    assert [await registrar.checks.look() for _ in range(3)] == [1, 1, 0]
    page = await registrar.answers.list(ListDomains(owner_id=OWNER), LATER)
    assert all(domain.checked_at for domain in page.data)
    assert len(mine) == len(page.data)


async def test_a_verified_domain_that_loses_its_records_is_measured_and_in_the_end_lost(
    registrar: Registrar,
) -> None:
    domain = await registrar.verified()
    registrar.dns.records.clear()
    missed = await registrar.verify(domain)
    assert (missed.status, set(states(missed).values())) == ("verified", {"missing"})
    async with registrar.office.postgres.connection() as connection:
        counts, late_s = await repository.measure(connection)
        assert (counts, late_s) == ({"losing": 1}, 0)
        await connection.execute("UPDATE domains SET missing_since = missing_since - interval '72 hours'")
    lost = await registrar.verify(domain)
    assert lost.status == "lost"
    events = await registrar.office.events()
    assert [event["is_verified"] for event in events] == [True, False]
    command = mail(sender=FROM_ACME)
    await registrar.office.accept(command)
    async with registrar.office.delivering(terms()):
        await registrar.office.reaches(command, "failed")


async def test_silent_servers_of_one_owner_keep_nobody_else_waiting(registrar: Registrar) -> None:
    silent = [await registrar.create(f"silent{number}.example") for number in range(MOST_OF_OWNER + 1)]
    for domain in silent:
        registrar.dns.silent |= {record.name for record in domain.records}
    looks = [asyncio.create_task(registrar.verify(domain)) for domain in silent]
    done, _ = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert isinstance(next(iter(done)).exception(), Overloaded)
    other = await registrar.verified(owner_id="2")
    assert other.status == "verified"
    found = await asyncio.gather(*looks, return_exceptions=True)
    assert sum(isinstance(one, Domain) and one.status == "pending" for one in found) == MOST_OF_OWNER


async def test_a_removed_domain_is_told_of_and_signs_nothing(registrar: Registrar) -> None:
    domain = await registrar.verified()
    with pytest.raises(DomainChangedMeanwhile):
        await registrar.answers.delete(DeleteDomain(domain_id=domain.id, owner_id=OWNER, version=1), LATER)
    await registrar.answers.delete(
        DeleteDomain(domain_id=domain.id, owner_id=OWNER, version=domain.version), LATER
    )
    *_, event = await registrar.office.events()
    assert (event["is_verified"], event["version"]) == (False, domain.version + 1)
    async with registrar.office.postgres.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM domain_keys") == 0


async def test_private_keys_lie_sealed_and_are_sealed_anew_after_a_rotation(registrar: Registrar) -> None:
    await registrar.create()
    renewed = KeySafe("the next secret of the tests", "a secret for the tests")
    await sealing.renew(registrar.office.postgres, renewed)
    async with registrar.office.postgres.connection() as connection:
        rows = await connection.fetch("SELECT sealed_key FROM domain_keys")
    assert len(rows) == 2
    for row in rows:
        assert b"\x30\x82" not in row["sealed_key"]
        assert KeySafe("the next secret of the tests").open(row["sealed_key"])


async def test_looks_are_counted_by_what_they_found(registrar: Registrar) -> None:
    def count(outcome: str) -> float:
        found: float = metrics.EMAIL_DOMAIN_CHECKS.labels(outcome)._value.get()
        return found

    before = {outcome: count(outcome) for outcome in ("complete", "incomplete", "unavailable")}
    domain = await registrar.verified()
    registrar.dns.broken.add("_dmarc.acme.example")
    await registrar.verify(domain)
    registrar.dns.broken.clear()
    registrar.dns.records.pop(("_dmarc.acme.example", "TXT"))
    await registrar.verify(domain)
    assert {outcome: count(outcome) - before[outcome] for outcome in before} == dict.fromkeys(before, 1.0)
