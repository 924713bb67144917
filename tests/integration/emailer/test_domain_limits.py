"""Destination domains with a limit: no period has more attempts than their rate, over all processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from prometheus_client import Gauge

from chassis import metrics
from contracts.emails import SendEmail
from emailer.mails import repository
from emailer.mails.domain_limits import DomainLimits
from emailer.sending import outcome_repository
from emailer.sending.domain_rates import DomainRates
from emailer.sending.lanes import MailLane
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Step
from support.waiting import until


def to(domain: str, count: int, **fields: object) -> list[SendEmail]:
    return [mail(to=[f"r{number}@{domain}"], **fields) for number in range(count)]


def measured(gauge: Gauge) -> set[float]:
    return {sample.value for metric in gauge.collect() for sample in metric.samples}


def reached(post_office: PostOffice, domain: str) -> int:
    return sum(f"@{domain}>" in line for line in post_office.server.commands if line.startswith("RCPT"))


async def test_a_period_has_no_more_attempts_than_the_rate_over_all_processes(
    post_office: PostOffice,
) -> None:
    limited, free = to("slow.example", 12), to("quick.example", 30)
    await post_office.accept(*limited, *free)
    terms = DispatcherTerms(domain_limits="slow.example=3/1", connections=4)
    async with post_office.delivering(terms), post_office.delivering(terms):
        for command in (*free, *limited):
            await post_office.reaches(command, "delivered")
    assert reached(post_office, "slow.example") == 12
    # The charge comes right before the attempt: the fourth of any four is a period behind the first.
    async with post_office.postgres.connection() as connection:
        charges = await connection.fetch("SELECT at, attempts FROM domain_charges ORDER BY at")
    slots = [row["at"] for row in charges for _ in range(row["attempts"])]
    assert len(slots) == 12
    assert all(later - first > timedelta(seconds=1) for first, later in zip(slots, slots[3:], strict=False))


async def test_only_mail_over_the_rate_waits_in_its_lane(post_office: PostOffice) -> None:
    limited, free = to("slow.example", 40), to("quick.example", 60)
    await post_office.accept(*limited)
    async with post_office.delivering(DispatcherTerms(domain_limits="slow.example=2/3600")):
        await until(lambda: reached(post_office, "slow.example") == 2)
        await post_office.accept(*free)
        for command in free:
            await post_office.reaches(command, "delivered")
        async with post_office.postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT status, tries FROM recipients WHERE domain = 'slow.example'"
            )
    # They can be cancelled, and their attempts are not counted.
    assert Counter((row["status"], row["tries"]) for row in rows) == {("queued", 0): 38, ("delivered", 1): 2}
    assert reached(post_office, "slow.example") == 2


async def test_each_of_the_other_domains_has_the_wildcard_rate_for_itself(post_office: PostOffice) -> None:
    domains = [f"d{number}.example" for number in range(25)]
    await post_office.accept(*(command for domain in domains for command in to(domain, 3)))
    async with post_office.delivering(DispatcherTerms(domain_limits="*=1/3600,d0.example=3/3600")):
        await until(lambda: sum(reached(post_office, domain) for domain in domains) == 27)
    assert {domain: reached(post_office, domain) for domain in domains} == dict.fromkeys(domains, 1) | {
        "d0.example": 3
    }


async def test_owners_take_turns_at_a_domain_that_takes_one_at_a_time(post_office: PostOffice) -> None:
    many, few = to("slow.example", 30, owner_id="many"), to("slow.example", 3, owner_id="few")
    await post_office.accept(*many)
    await post_office.accept(*few)
    async with post_office.postgres.connection() as connection:
        rates = DomainRates(post_office.postgres, DomainLimits.read("slow.example=1/1"))
        lanes = {MailLane("bulk", owner, "slow.example"): 10 for owner in ("few", "many")}
        turns = [next(iter(await rates.cut(connection, lanes, claimed=()))) for _ in range(6)]
    assert all(one.owner_id != other.owner_id for one, other in pairwise(turns))


async def test_transactional_mail_gets_the_room_of_a_domain_before_bulk_mail(post_office: PostOffice) -> None:
    await post_office.accept(*to("slow.example", 20, stream="bulk", owner_id="news"))
    urgent = to("slow.example", 2)
    await post_office.accept(*urgent)
    async with post_office.delivering(DispatcherTerms(domain_limits="slow.example=2/3600")):
        for command in urgent:
            await post_office.reaches(command, "delivered")
    assert reached(post_office, "slow.example") == 2


async def test_two_processes_that_claim_for_the_same_room_send_no_more_than_it_holds(
    post_office: PostOffice,
) -> None:
    limits = DomainLimits.read("slow.example=5/3600")
    one, other = DomainRates(post_office.postgres, limits), DomainRates(post_office.postgres, limits)
    await post_office.accept(*to("slow.example", 10))
    rows = await post_office.claim(most=10)
    async with post_office.postgres.connection() as connection:
        mails = await repository.read_mails(connection, [row["email_id"] for row in rows])
    jobs = outcome_repository.jobs(rows, mails)
    assert len(jobs) == 10
    outcomes = await asyncio.gather(*map(one.begin, jobs[:5]), *map(other.begin, jobs[5:]))
    given_back = [outcome for outcome in outcomes if outcome is not None]
    assert len(given_back) == 5
    # They keep their place, and no attempt is counted.
    assert all((o.status, o.tries, o.due_at) == ("queued", 0, o.job.due_at) for o in given_back)


async def test_a_domain_gets_no_more_connections_than_its_limit(post_office: PostOffice) -> None:
    stuck, free = to("few.example", 6), to("quick.example", 6)
    for command in stuck:
        post_office.server.script(command.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(*stuck)
    async with post_office.delivering(
        DispatcherTerms(domain_limits="few.example=2", connections=8, timeout_s=60)
    ):
        await until(lambda: reached(post_office, "few.example") == 2)
        await post_office.accept(*free)
        for command in free:
            await post_office.reaches(command, "delivered")
        assert reached(post_office, "few.example") == 2
        # Nobody need wait for its answers any more.
        await post_office.server.stop()


async def test_mails_that_wait_for_a_rate_do_not_count_as_late_but_their_domain_is_measured(
    post_office: PostOffice,
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await post_office.accept(*to("slow.example", 3, accepted_at=long_ago))
    async with post_office.delivering(DispatcherTerms(domain_limits="slow.example=1/3600", lease_s=6)):
        await until(lambda: measured(metrics.EMAIL_LIMITED_DOMAINS) == {1.0})
        assert measured(metrics.EMAIL_OLDEST_DUE) == {0.0}


@pytest.fixture(autouse=True)
def _without_what_was_measured_before() -> None:
    metrics.EMAIL_LIMITED_DOMAINS.set(0)
