"""The part of the service that keeps sender domains, beside a DNS server and a relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from contracts.domains import CreateDomain, Domain, VerifyDomain
from emailer.domains.answers import DomainAnswers
from emailer.domains.checking import DomainChecks
from emailer.domains.keys import KeySafe
from emailer.domains.lookups import DnsLookups, read_servers
from emailer.domains.progress import CheckSchedule
from emailer.domains.records import RecordSettings
from support.doubles.dns import DnsServer
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, senders

SAFE = KeySafe("a secret for the tests")
LATER = Deadline.after(60)
RELAY = RecordSettings("include:spf.relay.example", "bounces.relay.example")
# No test waits for it: on a busy machine an answer that came later would be taken for none.
PATIENCE_S = 60.0
FROM_ACME = "Acme <orders@acme.example>"


@dataclass
class Registrar:
    """Creates and reads domains as their owner does."""

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
    office: PostOffice,
    server: DnsServer,
    *,
    safe: KeySafe | None = SAFE,
    most: int = 60,
) -> Registrar:
    announced: list[bool] = []
    checks = DomainChecks(
        office.postgres,
        DnsLookups(read_servers(server.address), deadline_s=PATIENCE_S),
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


def terms(allowed: str = "none", safe: KeySafe | None = SAFE) -> DispatcherTerms:
    return DispatcherTerms(senders=lambda: senders(allowed, safe))
