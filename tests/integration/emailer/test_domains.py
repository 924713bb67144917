"""Sender domains on a real database and DNS server: verification, keys, signed mails, refused mails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis import metrics
from chassis.errors import NotFound, TooManyAtOnce
from contracts.domains import DeleteDomain, Domain, GetDomain, ListDomains, RotateDkim, VerifyDomain
from emailer.bounces.return_path import ReturnPath
from emailer.domains import repository
from emailer.domains.answers import MOST_ON_PAGE
from emailer.domains.checking import MOST_OF_OWNER
from emailer.errors import DomainChangedMeanwhile, DomainExists, TooManyDomains
from support.doubles import dns
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail, senders
from support.doubles.registrar import FROM_ACME, LATER, SAFE, Registrar, registrar_of, terms
from support.measured import value_of


@pytest.fixture
async def registrar(post_office: PostOffice) -> AsyncIterator[Registrar]:
    async with dns.running() as server:
        yield registrar_of(post_office, server)


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


async def test_each_owner_sees_and_verifies_only_its_own_domains(registrar: Registrar) -> None:
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


async def test_a_request_makes_one_domain_and_a_name_exists_once(registrar: Registrar) -> None:
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


async def test_a_page_stays_small_whatever_the_records_contain(registrar: Registrar) -> None:
    for number in range(MOST_ON_PAGE + 1):
        await registrar.create(f"d{number}.example")
    async with registrar.office.postgres.connection() as connection:
        # As the release before has stored it: ten values of 2,048 characters for each record.
        await connection.execute(
            "UPDATE domains SET findings = json_build_object('dmarc _dmarc.' || name, json_build_object("
            "  'state', 'different', 'values', array_fill(repeat('\\', 2048), ARRAY[10])))"
        )
    page = await registrar.answers.list(ListDomains(owner_id=OWNER, limit=200), LATER)
    assert len(page.data) == MOST_ON_PAGE
    assert page.next_cursor == page.data[-1].id
    (dmarc,) = [record for record in page.data[0].records if record.purpose == "dmarc"]
    assert [len(value) for value in dmarc.found] == [512] * 3
    assert len(page.model_dump_json()) < 1 << 20


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


async def test_a_subdomain_without_a_policy_has_that_of_the_domain_above(registrar: Registrar) -> None:
    domain = await registrar.verified("mail.news.acme.example")
    registrar.dns.records.pop(("_dmarc.mail.news.acme.example", "TXT"))
    assert states(await registrar.verify(domain))["dmarc"] == "missing"
    registrar.dns.put("_dmarc.acme.example", "TXT", "v=DMARC1; p=reject")
    found = next(r for r in (await registrar.verify(domain)).records if r.purpose == "dmarc")
    assert (found.state, found.inherited_from) == ("found", "_dmarc.acme.example")
    assert found.found == ["v=DMARC1; p=reject"]
    registrar.dns.broken.add("_dmarc.news.acme.example")
    assert states(await registrar.verify(domain))["dmarc"] == "unavailable"
    assert "TXT _dmarc.example" not in registrar.dns.asked
    registrar.dns.put("_dmarc.mail.news.acme.example", "TXT", "v=DMARC1; p=bad")
    own = next(r for r in (await registrar.verify(domain)).records if r.purpose == "dmarc")
    assert (own.state, own.inherited_from) == ("different", None)


async def test_mails_of_a_domain_with_a_return_path_come_back_by_it(registrar: Registrar) -> None:
    domain = await registrar.verified()
    other = await registrar.create("third.example")
    registrar.dns.follow([record for record in other.records if record.purpose != "return_path"])
    await registrar.verify(other)
    named = DispatcherTerms(
        senders=lambda: senders("none", SAFE), return_path=ReturnPath("bounces.relay.example", (b"k",))
    )

    async def came_by(sender: str) -> str:
        registrar.office.server.received.clear()
        command = mail(sender=sender)
        await registrar.office.accept(command)
        async with registrar.office.delivering(named):
            await registrar.office.reaches(command, "delivered")
        return registrar.office.server.received[0].sender.partition("@")[2]

    assert await came_by("a@acme.example") == "bounces.acme.example"
    assert await came_by("a@third.example") == "bounces.relay.example"
    # Silence of DNS takes nothing away, another record does.
    registrar.dns.broken.add("bounces.acme.example")
    await registrar.verify(domain)
    assert await came_by("a@acme.example") == "bounces.acme.example"
    registrar.dns.broken.clear()
    registrar.dns.put("bounces.acme.example", "CNAME", "elsewhere.example")
    await registrar.verify(domain)
    assert await came_by("a@acme.example") == "bounces.relay.example"


async def test_due_domains_are_checked_one_per_owner_at_once(registrar: Registrar) -> None:
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
    looks = [asyncio.create_task(registrar.verify(domain)) for domain in silent[:-1]]
    while not all(any(domain.name in asked for asked in registrar.dns.asked) for domain in silent[:-1]):
        await asyncio.sleep(0.01)
    with pytest.raises(TooManyAtOnce):
        await registrar.verify(silent[-1])
    assert (await registrar.verified(owner_id="2")).status == "verified"
    assert not any(look.done() for look in looks)
    for look in looks:
        look.cancel()
    await asyncio.wait(looks)
    # Their places are free again.
    assert (await registrar.verified()).status == "verified"


async def test_a_removed_domain_is_announced_and_signs_nothing(registrar: Registrar) -> None:
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


async def test_the_end_of_a_domain_that_was_never_verified_is_announced_to_nobody(
    registrar: Registrar,
) -> None:
    domain = await registrar.create()
    request = DeleteDomain(domain_id=domain.id, owner_id=OWNER, version=domain.version)
    assert (await registrar.answers.delete(request, LATER)).id == domain.id
    assert await registrar.office.events() == []


async def test_dns_checks_are_counted_by_their_result(registrar: Registrar) -> None:
    def count(outcome: str) -> float:
        return value_of(metrics.EMAIL_DOMAIN_CHECKS.labels(outcome))

    before = {outcome: count(outcome) for outcome in ("complete", "incomplete", "unavailable")}
    domain = await registrar.verified()
    registrar.dns.broken.add("_dmarc.acme.example")
    await registrar.verify(domain)
    registrar.dns.broken.clear()
    registrar.dns.records.pop(("_dmarc.acme.example", "TXT"))
    await registrar.verify(domain)
    assert {outcome: count(outcome) - before[outcome] for outcome in before} == dict.fromkeys(before, 1.0)
