"""Replies that concern the route pause it, for as few others as possible, and burn no attempt."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from emailer.sending import outcomes, own_rules
from emailer.sending.attempts import Patience
from support import limbo
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SAY_NOTHING, Stage, Step
from support.waiting import until

TERMS = DispatcherTerms(connections=1, pause_s=60)


async def test_a_relay_whose_limit_is_reached_pauses_the_route_and_burns_no_attempt(
    post_office: PostOffice,
) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(5)]
    for command in commands:
        post_office.server.script(command.to[0], Step("mail", "550 5.4.5 Daily user sending quota exceeded"))
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=1)) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
        emails = [await post_office.reaches(command, "delivered") for command in commands]
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 5


async def test_a_limit_of_one_owner_pauses_nobody_else_while_mails_of_others_are_accepted(
    post_office: PostOffice,
) -> None:
    limited = [mail(owner_id="press", to=[f"reader-{number}@example.com"]) for number in range(5)]
    for command in limited:
        post_office.server.script(command.to[0], *[Step("mail", "550 5.4.5 Daily quota exceeded")] * 9)
    before, after = (mail(owner_id="shop", to=[f"buyer-{number}@example.com"]) for number in range(2))
    async with post_office.delivering(DispatcherTerms(pause_s=60, patience=Patience(scale=1))) as dispatcher:
        await post_office.accept(before)
        await post_office.reaches(before, "delivered")
        await post_office.accept(*limited)
        emails = [await post_office.reaches(command, "deferred") for command in limited]
        await post_office.accept(after)
        await post_office.reaches(after, "delivered")
        assert not dispatcher.is_route_paused
    replies = Counter(email.recipients[0].attempts[0].smtp_reply for email in emails)
    said = "5.4.5 Daily quota exceeded"
    waiting = f"not tried: mails of this sender wait, because the relay said: 550 {said}"
    # As many as there are connections ask before the first answer is there.
    assert replies.keys() == {said, waiting}
    assert replies[waiting] >= 2


async def test_a_sender_that_meets_limits_again_and_again_waits_a_minute_each_time(
    post_office: PostOffice,
) -> None:
    few = mail(owner_id="shop", to=["buyer@example.com"])
    post_office.server.script(few.to[0], *[Step("mail", "452 4.5.3 Too many messages in this minute")] * 3)
    many, minute_s = mail(owner_id="press"), 60 * TERMS.patience.scale
    with capture_logs() as lines:
        async with post_office.delivering(TERMS):
            await post_office.accept(many)
            await post_office.reaches(many, "delivered")
            await post_office.accept(few)
            await post_office.reaches(few, "delivered")
    pauses = [line for line in lines if line["event"] == "mail of an owner paused"]
    assert [(pause["reason"], pause["seconds"]) for pause in pauses] == [("limited", minute_s)] * 3


async def test_mails_of_a_sender_that_policy_refuses_wait_together_and_burn_no_attempt(
    post_office: PostOffice,
) -> None:
    server = post_office.server
    refused = [mail(to=[f"reader-{number}@example.com"], sender="a@mine.example") for number in range(30)]
    for command in refused:
        server.script(command.to[0], *[Step("mail", "553 5.7.1 sender not owned by user")] * 9)
    others = [mail(), mail(owner_id="another", sender="a@mine.example")]
    await post_office.accept(*refused, *others)
    async with post_office.delivering(
        DispatcherTerms(connections=2, patience=Patience(scale=1))
    ) as dispatcher:
        emails = [await post_office.reaches(command, "deferred") for command in refused]
        for command in others:
            await post_office.reaches(command, "delivered")
        assert not dispatcher.is_route_paused
    said = [email.recipients[0].attempts[0] for email in emails]
    # As many as asked before the first answer was there.
    assert 1 <= sum(attempt.smtp_code == 553 for attempt in said) <= 2
    assert all("sender not owned by user" in attempt.smtp_reply for attempt in said)
    async with post_office.postgres.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT status, tries FROM recipients")
        longest = await connection.fetchval("SELECT max(due_at) - now() FROM recipients")
    assert {tuple(row) for row in rows} == {("deferred", 0), ("delivered", 1)}
    assert longest < timedelta(seconds=61)
    assert await limbo.strays(post_office) == []


async def test_a_sender_that_policy_takes_again_has_its_mails_delivered(post_office: PostOffice) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(10)]
    for command in commands:
        post_office.server.script(command.to[0], Step("mail", "553 5.7.1 sender not owned by user"))
    await post_office.accept(*commands)
    # Each of them may be the first after a pause, and be refused: the pauses grow until one is accepted.
    async with post_office.delivering(DispatcherTerms(connections=1, patience=Patience(scale=0.00002))):
        for command in commands:
            await post_office.reaches(command, "delivered")


async def test_a_route_whose_relay_refuses_everything_is_paused_before_every_mail_has_failed(
    post_office: PostOffice,
) -> None:
    server = post_office.server
    commands = [
        mail(owner_id=f"owner-{number % 20}", to=[f"reader@{number}.example"]) for number in range(60)
    ]
    for command in commands:
        server.script(command.to[0], *[Step("rcpt", "554 5.7.1 relay access denied")] * 2)
    await post_office.accept(*commands)
    terms = DispatcherTerms(connections=2, refusals_before_pause=10, pause_s=60)
    async with post_office.delivering(terms) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
    emails = [await post_office.read(command) for command in commands]
    assert Counter(email.status for email in emails)["failed"] == 9
    # The one that was too many, and those under way beside it, are tried again.
    deferred = [email for email in emails if email.status == "deferred"]
    assert 1 <= len(deferred) <= 2
    assert {email.recipients[0].attempts[0].smtp_code for email in deferred} == {554}


async def test_two_owners_whose_mails_are_refused_right_after_a_start_wait_and_no_more_of_them_fail(
    post_office: PostOffice,
) -> None:
    refused = [mail(owner_id=f"press-{number % 2}", to=[f"reader@{number}.example"]) for number in range(60)]
    for command in refused:
        post_office.server.script(command.to[0], *[Step("content", "554 5.7.1 looks like spam")] * 9)
    await post_office.accept(*refused)
    terms = DispatcherTerms(connections=2, refusals_before_pause=10, pause_s=60, patience=Patience(scale=1))
    async with post_office.delivering(terms) as dispatcher:
        for command in refused[-2:]:
            await post_office.reaches(command, "deferred")
        late = mail(owner_id="shop", to=["late@example.com"])
        await post_office.accept(late)
        await post_office.reaches(late, "delivered")
        assert not dispatcher.is_route_paused
    emails = [await post_office.read(command) for command in refused]
    # Nothing shows yet that these are to blame, and not the settings: none is lost after the burst.
    assert Counter(email.status for email in emails) == {"failed": 9, "deferred": 51}


async def test_an_owner_whose_mails_are_refused_waits_and_nobody_else_does(post_office: PostOffice) -> None:
    early, late = mail(owner_id="shop"), mail(owner_id="shop", to=["late@example.com"])
    refused = [mail(owner_id="press", to=[f"reader@{number}.example"]) for number in range(60)]
    for command in refused:
        post_office.server.script(command.to[0], *[Step("content", "554 5.7.1 looks like spam")] * 9)
    await post_office.accept(early)
    terms = DispatcherTerms(connections=2, refusals_before_pause=10, pause_s=60, patience=Patience(scale=1))
    async with post_office.delivering(terms) as dispatcher:
        await post_office.reaches(early, "delivered")
        await post_office.accept(*refused)
        await post_office.reaches(refused[-1], "deferred")
        await post_office.accept(late)
        await post_office.reaches(late, "delivered")
        assert not dispatcher.is_route_paused
    emails = [await post_office.read(command) for command in refused]
    # Those before the burst, and at most the one that was under way beside it.
    assert 9 <= Counter(email.status for email in emails)["failed"] <= 10


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "content"])
@pytest.mark.parametrize("connections", [1, 3])
async def test_mails_that_pause_the_route_each_time_pause_it_for_others_once(
    post_office: PostOffice, stage: Stage, connections: int
) -> None:
    text = '[{"name": "our relay", "codes": ["45x"], "says": "slow", "then": "pause"}]'
    patience = Patience(scale=0.0005, rules=outcomes.with_own(own_rules.read(text)))
    slowed = [mail(owner_id="press", to=[f"slow-{number}@example.com"]) for number in range(5)]
    for command in slowed:
        post_office.server.script(command.to[0], *[Step(stage, "450 4.7.0 slow down")] * 500)
    others = [mail(owner_id="shop", to=[f"buyer-{number}@example.com"]) for number in range(5)]
    await post_office.accept(*slowed, *others)
    with capture_logs() as lines:
        async with post_office.delivering(DispatcherTerms(connections=connections, patience=patience)):
            for command in others:
                await post_office.reaches(command, "delivered")
            late = mail(owner_id="late", to=["late@example.com"])
            await post_office.accept(late)
            await post_office.reaches(late, "delivered")
    pauses = [line for line in lines if line["event"] == "route paused"]
    assert [(pause["reason"], pause["detail"]) for pause in pauses] == [("limited", "450 4.7.0 slow down")]
    emails = [await post_office.read(command) for command in slowed]
    assert all(email.status in ("queued", "sending", "deferred") for email in emails)
    async with post_office.postgres.connection() as connection:
        tries = await connection.fetchval("SELECT max(tries) FROM recipients WHERE address LIKE 'slow%'")
    assert tries == 0


async def test_a_sender_that_must_log_in_waits_alone_while_mails_of_others_are_accepted(
    post_office: PostOffice,
) -> None:
    foreign = mail(owner_id="press", sender="a@mine.example", to=["reader@example.com"])
    post_office.server.script(foreign.to[0], *[Step("mail", "530 5.7.0 Authentication required")] * 500)
    before, after = (mail(owner_id="shop", to=[f"buyer-{number}@example.com"]) for number in range(2))
    async with post_office.delivering(DispatcherTerms(pause_s=60, patience=Patience(scale=1))) as dispatcher:
        await post_office.accept(before)
        await post_office.reaches(before, "delivered")
        await post_office.accept(foreign)
        email = await post_office.reaches(foreign, "deferred")
        await post_office.accept(after)
        await post_office.reaches(after, "delivered")
        assert not dispatcher.is_route_paused
    assert [attempt.smtp_code for attempt in email.recipients[0].attempts] == [530]


async def test_a_relay_that_takes_mails_again_is_trusted_again(post_office: PostOffice) -> None:
    commands = [mail(to=[f"reader@{number}.example"]) for number in range(12)]
    for command in commands:
        post_office.server.script(command.to[0], Step("rcpt", "554 5.7.1 relay access denied"))
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=1, refusals_before_pause=4)):
        late = mail(to=["reader@late.example"])
        await post_office.accept(late)
        await post_office.reaches(late, "delivered")

        async def have_ended() -> bool:
            emails = [await post_office.read(command) for command in commands]
            return all(email.status in ("delivered", "failed") for email in emails)

        await until(have_ended)
        # The last three may have failed: a fourth refusal without an acceptance in between is a burst.
        last = mail(to=["reader@last.example"])
        await post_office.accept(last)
        await post_office.reaches(last, "delivered")
        post_office.server.script("nobody@example.com", Step("rcpt", "554 5.7.1 not you"))
        refused = mail(to=["nobody@example.com"])
        await post_office.accept(refused)
        await post_office.reaches(refused, "failed")
    emails = [await post_office.read(command) for command in commands]
    # Some waited first, without being tried, as their owner's were refused.
    tried = [[attempt for attempt in email.recipients[0].attempts if attempt.host] for email in emails]
    assert {attempts[0].smtp_code for attempts in tried} == {554}
    assert Counter(email.status for email in emails)["delivered"] >= 1


async def test_a_relay_that_allows_fewer_connections_than_we_open_pauses_nothing(
    post_office: PostOffice,
) -> None:
    server = post_office.server
    server.most_at_a_time = 2
    commands = [
        mail(owner_id=f"owner-{number % 5}", to=[f"reader@{number % 10}.example"]) for number in range(40)
    ]
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=8, pause_s=60)) as dispatcher:
        emails = [await post_office.reaches(command, "delivered") for command in commands]
        assert not dispatcher.is_route_paused
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 40
    assert len({one.connection for one in server.received}) == 2


async def test_a_connection_that_a_full_relay_allows_later_is_found_while_its_others_are_held(
    post_office: PostOffice,
) -> None:
    server = post_office.server
    server.most_at_a_time = 1
    stuck, waiting = mail(to=["reader@tarpit.example"]), mail(owner_id="another")
    server.script(stuck.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(stuck)
    async with post_office.delivering(DispatcherTerms(connections=8, timeout_s=300)) as dispatcher:
        await until(lambda: server.attempts["reader@tarpit.example"])
        await post_office.accept(waiting)
        # The one that is allowed, and one that was refused.
        await until(lambda: server.connections > 1)
        server.most_at_a_time = None
        await post_office.reaches(waiting, "delivered")
        assert not dispatcher.is_route_paused
        await server.stop()


async def test_a_full_relay_that_goes_away_pauses_the_route_until_it_is_back(post_office: PostOffice) -> None:
    server = post_office.server
    server.most_at_a_time = 1
    stuck = mail(to=["reader@tarpit.example"])
    others = [mail(owner_id="another", to=[f"reader-{number}@example.com"]) for number in range(5)]
    server.script(stuck.to[0], Step("rcpt", SAY_NOTHING))
    await post_office.accept(stuck)
    async with post_office.delivering(DispatcherTerms(connections=8, timeout_s=300)) as dispatcher:
        await until(lambda: server.attempts["reader@tarpit.example"])
        await post_office.accept(*others)
        await until(lambda: server.connections > 1)
        await server.stop()
        await until(lambda: dispatcher.is_route_paused)
        await server.start()
        emails = [await post_office.reaches(command, "delivered") for command in others]
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 5
