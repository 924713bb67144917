"""A mail that one of several relays refuses or misses goes to the next, and this costs no attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from emailer.sending import outcomes, own_rules
from emailer.sending.attempts import Patience
from emailer.sending.smtp import SmtpRelay
from support.doubles import smtp as double
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SmtpServer, Step
from support.waiting import until

LOGIN = ("user", "password")


@pytest.fixture
async def second() -> AsyncIterator[SmtpServer]:
    async with double.running() as running:
        yield running


def to_both(second: SmtpServer) -> DispatcherTerms:
    return DispatcherTerms(
        connections=1, other_relays=(SmtpRelay("127.0.0.1", second.port, tls="off", timeout_s=5),)
    )


@pytest.mark.parametrize(
    "turned_away",
    [
        {"greeting": "554 5.7.1 go away"},
        {"greeting": "421 too many connections"},
        {"hello_refusal": "550 not you"},
        {"login": LOGIN},
        {},
    ],
)
async def test_a_relay_that_refuses_us_is_skipped_for_the_next(
    post_office: PostOffice, second: SmtpServer, turned_away: dict[str, str]
) -> None:
    for name, value in turned_away.items():
        setattr(post_office.server, name, value)
    if not turned_away:
        await post_office.server.stop()
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(5)]
    await post_office.accept(*commands)
    async with post_office.delivering(to_both(second)) as dispatcher:
        emails = [await post_office.reaches(command, "delivered") for command in commands]
        assert not dispatcher.is_route_paused
    (attempts,) = {tuple(attempt.host for attempt in email.recipients[0].attempts) for email in emails}
    assert attempts == (f"127.0.0.1:{second.port}",)
    assert len(second.received) == 5
    if not turned_away:
        await post_office.server.start()


async def test_a_relay_that_a_rule_of_the_operator_pauses_is_skipped_for_the_next(
    post_office: PostOffice, second: SmtpServer
) -> None:
    text = '[{"name": "our relay", "stages": ["content"], "codes": ["450"], "then": "pause"}]'
    patience = Patience(scale=0.0005, rules=outcomes.with_own(own_rules.read(text)))
    command = mail()
    post_office.server.script(command.to[0], *[Step("content", "450 4.7.0 slow down")] * 500)
    await post_office.accept(command)
    async with post_office.delivering(replace(to_both(second), patience=patience)) as dispatcher:
        email = await post_office.reaches(command, "delivered")
        assert not dispatcher.is_route_paused
    (attempt,) = email.recipients[0].attempts
    assert attempt.host == f"127.0.0.1:{second.port}"


async def test_a_relay_that_limits_its_intake_is_skipped_for_the_next(
    post_office: PostOffice, second: SmtpServer
) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(5)]
    for command in commands:
        post_office.server.script(command.to[0], Step("mail", "550 5.4.5 Daily user sending quota exceeded"))
    await post_office.accept(*commands)
    async with post_office.delivering(to_both(second)) as dispatcher:
        emails = [await post_office.reaches(command, "delivered") for command in commands]
        assert not dispatcher.is_route_paused
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 5
    assert second.received


@pytest.mark.parametrize("is_large", [True, False])
async def test_a_mail_that_a_relay_cannot_carry_goes_to_one_that_can(
    post_office: PostOffice, second: SmtpServer, is_large: bool
) -> None:
    if is_large:
        post_office.server.extensions = [*post_office.server.extensions, "SIZE 5000"]
        special = [mail(text="x" * 20_000) for _ in range(6)]
    else:
        post_office.server.extensions = ["PIPELINING", "8BITMIME"]
        special = [mail(to=[f"jörg-{number}@example.com"]) for number in range(6)]
    usual = [mail(to=[f"reader-{number}@example.com"]) for number in range(6)]
    await post_office.accept(*(one for pair in zip(special, usual, strict=True) for one in pair))
    async with post_office.delivering(to_both(second)) as dispatcher:
        for command in (*special, *usual):
            email = await post_office.reaches(command, "delivered")
            assert len(email.recipients[0].attempts) == 1
        assert not dispatcher.is_route_paused
    # The first relay stays that of all other mails, and the sessions of both are kept.
    assert (len(post_office.server.received), len(second.received)) == (6, 6)
    assert (post_office.server.connections, second.connections) == (1, 1)


@pytest.mark.parametrize(
    "reply", ["552 5.3.4 Message size exceeds fixed limit", "550 5.6.7 SMTPUTF8 is not supported"]
)
async def test_a_mail_that_a_relay_refuses_to_carry_at_mail_goes_to_the_next(
    post_office: PostOffice, second: SmtpServer, reply: str
) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(4)]
    for command in commands[::2]:
        post_office.server.script(command.to[0], Step("mail", reply))
    await post_office.accept(*commands)
    async with post_office.delivering(to_both(second)) as dispatcher:
        emails = [await post_office.reaches(command, "delivered") for command in commands]
        assert not dispatcher.is_route_paused
    hosts = [attempt.host for email in emails for attempt in email.recipients[0].attempts]
    assert hosts == [f"127.0.0.1:{one.port}" for one in (second, post_office.server) * 2]
    # The session with the first relay is kept: a refused mail is forgotten by RSET.
    assert (post_office.server.connections, second.connections) == (1, 1)


async def test_a_mail_that_every_relay_refuses_to_carry_fails_with_the_last_reply(
    post_office: PostOffice, second: SmtpServer
) -> None:
    command, early = mail(), mail(to=["early@example.com"])
    for server in (post_office.server, second):
        server.script(command.to[0], Step("mail", f"552 5.3.4 more than {server.port} takes"))
    post_office.server.script(early.to[0], Step("mail", "552 5.3.4 too large"))
    await post_office.accept(command)
    async with post_office.delivering(to_both(second)):
        email = await post_office.reaches(command, "failed")
        (attempt,) = email.recipients[0].attempts
        assert attempt.host == f"127.0.0.1:{second.port}"
        assert attempt.smtp_reply == f"5.3.4 more than {second.port} takes"
        # While the other relay is away, the mail waits for it.
        await second.stop()
        await post_office.accept(early)
        email = await post_office.reaches(early, "deferred")
        assert "cannot carry this mail" in email.recipients[0].attempts[0].smtp_reply
        await second.start()
        await post_office.reaches(early, "delivered")


async def test_a_mail_that_no_relay_can_carry_fails_and_one_whose_relay_is_away_waits(
    post_office: PostOffice, second: SmtpServer
) -> None:
    post_office.server.extensions, offered = ["PIPELINING"], second.extensions
    await second.stop()
    command, usual = mail(to=["jörg@example.com"]), mail()
    await post_office.accept(command, usual)
    terms = replace(to_both(second), patience=Patience(scale=0.0005))
    async with post_office.delivering(terms) as dispatcher:
        await post_office.reaches(usual, "delivered")
        email = await post_office.reaches(command, "deferred")
        assert "cannot carry this mail, and no other relay lets us in" in (
            email.recipients[0].attempts[0].smtp_reply
        )
        assert not dispatcher.is_route_paused
        await second.start()
        await post_office.reaches(command, "delivered")
        second.extensions = ["PIPELINING"]
        hopeless = mail(to=["jörg-2@example.com"])
        await second.stop()
        await second.start()
        await post_office.accept(hopeless)
        email = await post_office.reaches(hopeless, "failed")
        assert "SMTPUTF8" in email.recipients[0].attempts[-1].smtp_reply
    second.extensions = offered


async def test_the_first_relay_is_used_again_when_it_lets_us_in(
    post_office: PostOffice, second: SmtpServer
) -> None:
    usual, post_office.server.greeting = post_office.server.greeting, "421 not now"
    # Each mail has a connection of its own.
    terms = DispatcherTerms(connections=1, deliveries=1, other_relays=to_both(second).other_relays)
    async with post_office.delivering(terms):
        early = mail()
        await post_office.accept(early)
        await post_office.reaches(early, "delivered")
        post_office.server.greeting = usual

        async def has_come_back() -> bool:
            command = mail()
            await post_office.accept(command)
            await post_office.reaches(command, "delivered")
            return bool(post_office.server.received)

        await until(has_come_back)
    assert second.received


async def test_the_route_is_paused_only_when_no_relay_lets_us_in(
    post_office: PostOffice, second: SmtpServer
) -> None:
    await post_office.server.stop()
    await second.stop()
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(to_both(second)) as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
        assert (await post_office.read(command)).recipients[0].attempts == []
        await second.start()
        email = await post_office.reaches(command, "delivered")
    assert [attempt.host for attempt in email.recipients[0].attempts] == [f"127.0.0.1:{second.port}"]
    await post_office.server.start()


async def test_a_session_that_was_in_use_when_its_relay_was_skipped_is_not_used_again(
    post_office: PostOffice, second: SmtpServer
) -> None:
    _, route = post_office.dispatcher(to_both(second))
    held = await route.take()
    route.set_aside(held.relay, "limited", "452 4.7.0 too many messages")
    route.give_back(held)
    other = await route.take()
    assert other.relay.port == second.port
    # Nor does it end a pause, which another delivery has caused.
    route.pause("refusing", "550 no")
    route.give_back(other)
    await route.wait_open()
    assert await route.take() not in (held, other)
    route.close()


async def test_a_session_that_was_idle_too_long_is_closed_and_the_others_are_kept(
    post_office: PostOffice,
) -> None:
    _, route = post_office.dispatcher()
    old, fresh = await route.take(), await route.take()
    for session in (old, fresh):
        route.give_back(session)
    old.used_at -= 31
    route.close_idle()
    await until(lambda: post_office.server.commands.count("QUIT") == 1)
    assert await route.take() is fresh
    assert await route.take() is not old
    route.close()
