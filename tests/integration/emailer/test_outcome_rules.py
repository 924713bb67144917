"""Each rule of the outcome table, tried by a real SMTP server; and whether it concerns mail or route."""

from __future__ import annotations

import re
import ssl

import pytest
from structlog.testing import capture_logs

from emailer.bounces.return_path import ReturnPath
from emailer.errors import AuthenticationRefused, RelayUnreachable
from emailer.sending import outcomes, own_rules, smtp
from emailer.sending.attempts import Patience
from emailer.sending.outcomes import SmtpAnswer, SmtpReply, Verdict
from emailer.sending.smtp import Envelope, SmtpRelay
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SmtpServer, Stage, Step

READER = "b@example.com"
ENVELOPE = Envelope("a@example.com", READER, b"Subject: x\r\n\r\nHello\r\n")
LOGIN = ("user", "password")

OPENING: list[tuple[str, dict[str, str], type[Exception]]] = [
    ("a login that is not possible now", {"login_refusal": "451 4.3.0 database away"}, RelayUnreachable),
    ("a login that is not possible now", {"login_refusal": "454 4.7.0 not now"}, RelayUnreachable),
    ("a login that is not possible now", {"login_refusal": "432 4.7.12 change it"}, RelayUnreachable),
    ("a login that is refused", {"login_refusal": "535 5.7.8 wrong"}, AuthenticationRefused),
    ("a login that is refused", {"login_refusal": "500 what?"}, AuthenticationRefused),
    ("a relay that wants a login first", {"greeting": "530 5.7.0 who are you?"}, AuthenticationRefused),
    ("a relay that wants a login first", {"hello_refusal": "538 5.7.11 encrypt"}, AuthenticationRefused),
    ("a relay that turns us away", {"greeting": "554 5.7.1 listed"}, RelayUnreachable),
    ("a relay that turns us away", {"greeting": "421 too many"}, RelayUnreachable),
    ("a relay that turns us away", {"hello_refusal": "550 no"}, RelayUnreachable),
    ("a relay that turns us away", {"tls_refusal": "454 4.7.0 no TLS"}, RelayUnreachable),
]
STAGES: dict[str, outcomes.Stage] = {
    "greeting": "greeting",
    "hello_refusal": "hello",
    "tls_refusal": "starttls",
    "login_refusal": "login",
}
OF_MAILS: list[tuple[str, Stage, str, Verdict]] = [
    ("a sender that must log in", "mail", "530 5.7.0 Authentication required", "login-refused"),
    ("a limit of what we may send", "mail", "550 5.4.5 Daily user sending quota exceeded", "limited"),
    ("a limit of what we may send", "mail", "452 4.5.3 Too many messages in this hour", "limited"),
    ("a limit of what we may send", "mail", "421 4.7.0 rate limit exceeded", "limited"),
    ("a sender that must log in", "mail", "503 Error: need EHLO and AUTH first", "login-refused"),
    ("a recipient that needs a login", "rcpt", "530 5.7.1 Authentication required", "deferred"),
    ("a recipient that needs a login", "content", "535 5.7.8 no", "deferred"),
    ("a recipient that needs a login", "rcpt", "503 This server requires authentication", "deferred"),
    ("a sender that policy refuses", "mail", "553 5.7.1 sender not owned by user", "deferred"),
    ("a mail or a recipient that is refused", "mail", "553 5.1.8 sender refused", "failed"),
    ("an address that does not exist", "rcpt", "550 5.1.1 no such user", "failed"),
    ("an address that does not exist", "rcpt", "550 5.1.10 null MX", "failed"),
    ("an address that does not exist", "content", "550 5.1.2 no such host", "failed"),
    ("a mail or a recipient that is refused", "rcpt", "550 5.7.1 policy", "failed"),
    ("a mail or a recipient that is refused", "data", "554 5.5.1 no", "failed"),
    ("a mail or a recipient that is refused", "content", "550 5.7.1 looks like spam", "failed"),
    ("a mail that the relay cannot carry", "mail", "552 5.3.4 Message size limit exceeded", "failed"),
    ("a mail that the relay cannot carry", "mail", "552 Message size exceeds fixed maximum", "failed"),
    ("a mail that the relay cannot carry", "rcpt", "553 5.6.7 needs SMTPUTF8", "failed"),
    ("a mail that the relay cannot carry", "content", "552 5.3.4 too big: quota exceeded", "failed"),
    ("a limit of what we may send that comes late", "rcpt", "550 5.4.5 Daily quota exceeded", "deferred"),
    ("a limit of what we may send that comes late", "content", "550 Daily user sending limit", "deferred"),
    ("a limit of what we may send that comes late", "content", "550 5.4.6 mail rate exceeded", "deferred"),
    # Only a new session shows that these are not about the session before it.
    ("a limit of what we may send", "mail", "450 4.7.0 too many messages in this session", "limited"),
    ("a mail or a recipient that is refused", "mail", "500 5.5.2 line too long", "failed"),
    ("a mail or a recipient that is refused", "rcpt", "550 5.4.1 Access denied", "failed"),
    ("a mail or a recipient that is refused", "content", "552 5.2.2 mailbox full: quota exceeded", "failed"),
    ("a mail that is taken", "content", "250 2.0.0 ok", "delivered"),
    ("not now", "mail", "421 4.3.2 shutting down", "deferred"),
    ("not now", "rcpt", "450 4.7.1 greylisted", "deferred"),
    ("not now", "rcpt", "452 4.2.2 mailbox full: quota exceeded", "deferred"),
    ("not now", "data", "452 4.3.1 disk full", "deferred"),
    ("not now", "content", "421 4.3.2 shutting down", "deferred"),
    ("not now", "content", "354 go on", "deferred"),
]
KEPT: list[tuple[str, Stage, str, Verdict]] = [
    ("a kept session that ends", "mail", "421 4.4.2 idle for too long", "new-session"),
    ("a kept session that ends", "rcpt", "421 4.3.2 shutting down", "new-session"),
    ("a kept session that ends", "data", "421 4.3.2 shutting down", "new-session"),
    # In the middle of the mail.
    ("a kept session that ends", "data", "354 go on\r\n421 4.3.2 shutting down", "new-session"),
    ("a kept session that ends", "mail", "421 4.7.0 too many messages, rate limit exceeded", "new-session"),
    ("a kept session that ends", "mail", "503 5.5.1 nested MAIL command", "new-session"),
    ("a kept session that ends", "rcpt", "503 5.5.1 need MAIL command", "new-session"),
    ("a kept session that ends", "data", "503 5.5.1 need RCPT command", "new-session"),
    ("a kept session that ends", "mail", "502 5.5.2 command not recognized", "new-session"),
    ("a kept session that has had enough", "mail", "450 too many messages in this session", "new-session"),
    ("a kept session that has had enough", "mail", "452 4.3.2 too many mails per connection", "new-session"),
    ("a kept session that has had enough", "mail", "550 message limit reached this session", "new-session"),
    ("a kept session that has had enough", "rcpt", "452 4.5.3 enough for one SMTP session", "new-session"),
    ("a kept session that has had enough", "mail", "452 4.4.5 most messages per session", "new-session"),
    ("a kept session that has had enough", "mail", "451 4.4.2 idle for too long", "new-session"),
    ("a kept session that has had enough", "mail", "403 4.5.1 Error: nested MAIL command", "new-session"),
    # About what we may send, or about the mail: a new session changes nothing.
    ("a limit of what we may send", "mail", "450 4.7.0 hourly limit exceeded", "limited"),
    ("not now", "mail", "451 4.3.0 not now", "deferred"),
    ("not now", "content", "451 4.4.2 too long for this session", "deferred"),
]
LOGGED_IN: list[tuple[str, Stage, str, Verdict]] = [
    ("a sender that policy refuses", "mail", "530 5.7.0 log in as this sender", "deferred"),
    ("a sender that needs another login", "mail", "535 this sender is not yours", "deferred"),
    ("a command out of sequence", "mail", "503 5.5.1 not now", "deferred"),
    ("a command out of sequence", "rcpt", "503 5.5.1 not now", "deferred"),
    ("a mail or a recipient that is refused", "rcpt", "530 5.7.1 not for you", "failed"),
    ("a mail or a recipient that is refused", "content", "535 5.7.8 no", "failed"),
]


def relay(server: SmtpServer, **fields: str) -> SmtpRelay:
    return SmtpRelay("localhost", server.port, tls="off", timeout_s=5, **fields)  # type: ignore[arg-type]  # texts only


async def answers(server: SmtpServer, *steps: Step, **fields: str) -> list[SmtpAnswer]:
    """Return the answers that a session gets for one mail a step."""
    server.script(READER, *steps)
    session = await smtp.connect(relay(server, **fields))
    found = [await session.deliver(ENVELOPE) for _ in steps]
    session.close()
    return found


def test_every_rule_has_an_example() -> None:
    shown = [row[0] for rows in (OPENING, OF_MAILS, KEPT, LOGGED_IN) for row in rows]
    assert set(shown) == {rule.name for rule in outcomes.RULES}
    assert len({rule.name for rule in outcomes.RULES}) == len(outcomes.RULES)


@pytest.mark.parametrize(("rule", "behaviour", "raised"), OPENING)
async def test_a_reply_at_the_opening_concerns_the_route(
    server: SmtpServer, rule: str, behaviour: dict[str, str], raised: type[Exception]
) -> None:
    ((name, text),) = behaviour.items()
    setattr(server, name, text)
    stage = STAGES[name]
    assert outcomes.rule_of(SmtpAnswer(SmtpReply(int(text[:3]), text[4:]), stage)).name == rule
    tls = "off"
    if stage == "starttls":
        server.tls, tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "required"
    else:
        server.login = LOGIN
    with pytest.raises(raised, match=re.escape(text)):
        await smtp.connect(
            SmtpRelay("localhost", server.port, tls=tls, username=LOGIN[0], password=LOGIN[1], timeout_s=5)  # type: ignore[arg-type]  # a policy
        )


@pytest.mark.parametrize(("rule", "stage", "said", "verdict"), OF_MAILS)
async def test_a_reply_about_a_mail_means_what_its_rule_says(
    server: SmtpServer, rule: str, stage: Stage, said: str, verdict: Verdict
) -> None:
    (answer,) = await answers(server, Step(stage, said))
    assert (outcomes.rule_of(answer).name, outcomes.judge(answer)) == (rule, verdict)
    assert str(answer.reply) == said


@pytest.mark.parametrize(("rule", "stage", "said", "verdict"), KEPT)
async def test_a_reply_on_a_kept_session_may_concern_the_session(
    server: SmtpServer, rule: str, stage: Stage, said: str, verdict: Verdict
) -> None:
    answer = (await answers(server, Step("content", "250 ok"), Step(stage, said)))[-1]
    assert (outcomes.rule_of(answer).name, outcomes.judge(answer)) == (rule, verdict)


@pytest.mark.parametrize(("rule", "stage", "said", "verdict"), LOGGED_IN)
async def test_a_reply_about_logins_after_a_good_login_concerns_the_mail(
    server: SmtpServer, rule: str, stage: Stage, said: str, verdict: Verdict
) -> None:
    server.login = LOGIN
    (answer,) = await answers(server, Step(stage, said), username=LOGIN[0], password=LOGIN[1])
    assert (outcomes.rule_of(answer).name, outcomes.judge(answer)) == (rule, verdict)


@pytest.mark.parametrize("stage", ["rcpt", "content"])
async def test_a_reply_of_530_to_one_recipient_leaves_the_others_alone(
    post_office: PostOffice, stage: Stage
) -> None:
    refused = mail(to=["refused@example.com"])
    others = [mail(to=[f"reader-{number}@example.com"]) for number in range(40)]
    post_office.server.script("refused@example.com", *[Step(stage, "530 5.7.0 Authentication required")] * 50)
    await post_office.accept(refused, *others)
    async with post_office.delivering(DispatcherTerms(pause_s=60)) as dispatcher:
        for command in others:
            await post_office.reaches(command, "delivered")
        assert not dispatcher.is_route_paused
        email = await post_office.reaches(refused, "deferred")
    assert email.recipients[0].attempts[0].smtp_code == 530


@pytest.mark.parametrize(("local", "words"), [("reader", 1000), ("b\u00f6b", 1)])
async def test_mails_that_the_relay_cannot_carry_delay_nobody_else(
    post_office: PostOffice, local: str, words: int
) -> None:
    post_office.server.extensions = ["PIPELINING", "SIZE 4000"]
    refused = [mail(to=[f"{local}@{number}.example"], text="large " * words) for number in range(30)]
    await post_office.accept(*refused)
    async with post_office.delivering(DispatcherTerms(pause_s=60)) as dispatcher:
        for command in refused:
            await post_office.reaches(command, "failed")
        assert not dispatcher.is_route_paused
        other = mail(owner_id="another")
        await post_office.accept(other)
        await post_office.reaches(other, "delivered")


async def test_a_relay_without_smtputf8_refuses_only_the_copies_in_which_an_address_needs_it(
    post_office: PostOffice,
) -> None:
    post_office.server.extensions = ["PIPELINING"]
    hidden = mail(to=["ann@example.com"], bcc=["jörg@exämple.com"])
    shown = mail(to=["ann@example.com", "jörg@exämple.com"])
    await post_office.accept(hidden, shown)
    async with post_office.delivering():
        partly = await post_office.reaches(hidden, "partially_delivered")
        failed = await post_office.reaches(shown, "failed")
    assert [each.status for each in partly.recipients] == ["delivered", "failed"]
    assert [each.address for each in partly.recipients] == ["ann@example.com", "jörg@xn--exmple-cua.com"]
    replies = {each.attempts[-1].smtp_reply for each in (partly.recipients[1], *failed.recipients)}
    assert replies == {"5.6.7 The relay does not offer SMTPUTF8, which an address of this mail needs"}
    async with post_office.postgres.connection() as connection:
        assert not await connection.fetchval("SELECT count(*) FROM suppressions")


async def test_a_relay_with_smtputf8_gets_the_address_as_it_is_and_a_plain_return_path(
    post_office: PostOffice,
) -> None:
    path = ReturnPath("bounces.example.com", (b"k" * 32,))
    command = mail(to=["jörg@exämple.com"], sender="käthe@example.com")
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(return_path=path)):
        await post_office.reaches(command, "delivered")
    [sent] = [line for line in post_office.server.commands if line.startswith("MAIL FROM")]
    [address] = re.findall("<(.*)>", sent)
    assert path.read(address) == (command.email_id, 0)
    assert "SMTPUTF8" in sent.split()
    assert "RCPT TO:<jörg@xn--exmple-cua.com>" in post_office.server.commands


@pytest.mark.parametrize("farewell", [None, "421 4.7.0 enough for one connection"])
async def test_a_relay_that_ends_each_connection_after_three_mails_costs_no_attempt(
    post_office: PostOffice, farewell: str | None
) -> None:
    server = post_office.server
    server.mails_a_connection, server.farewell = 3, farewell
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(20)]
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=1)):
        emails = [await post_office.reaches(command, "delivered") for command in commands]
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 20
    assert len(server.received) == 20
    assert server.connections == 7


@pytest.mark.parametrize(
    "reply",
    [
        "503 5.5.1 nested MAIL command",
        "450 4.7.0 too many messages in this session",
        "421 4.7.0 limit reached",
    ],
)
async def test_a_relay_that_refuses_a_fourth_mail_of_a_connection_costs_no_attempt_and_no_pause(
    post_office: PostOffice, reply: str
) -> None:
    server = post_office.server
    server.mails_a_connection, server.farewell, server.stays_open = 3, reply, True
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(20)]
    await post_office.accept(*commands)
    with capture_logs() as lines:
        async with post_office.delivering(DispatcherTerms(connections=1)):
            emails = [await post_office.reaches(command, "delivered") for command in commands]
    assert [len(email.recipients[0].attempts) for email in emails] == [1] * 20
    assert len(server.received) == 20
    # A session that has refused a mail gets no other one.
    assert server.connections == 7
    assert [line for line in lines if line["event"] == "route paused"] == []


@pytest.mark.parametrize(
    ("then", "statuses"),
    [("defer", ["deferred", "delivered"]), ("pause", ["delivered"]), ("fail", ["failed"])],
)
async def test_a_rule_of_the_operator_comes_before_the_shipped_ones(
    post_office: PostOffice, then: str, statuses: list[str]
) -> None:
    text = f'[{{"name": "our relay", "codes": ["45x", "550"], "says": "not\\\\s+so", "then": "{then}"}}]'
    patience = Patience(scale=0.0005, rules=outcomes.with_own(own_rules.read(text)))
    command, other = mail(), mail(to=["other@example.com"])
    post_office.server.script(READER.replace("b@", "reader@"), Step("rcpt", "550 5.1.1 Not so fast"))
    post_office.server.script("other@example.com", Step("rcpt", "550 5.1.1 no such user"))
    await post_office.accept(command, other)
    async with post_office.delivering(DispatcherTerms(patience=patience)):
        email = await post_office.reaches(command, statuses[-1])
        await post_office.reaches(other, "failed")
    assert [attempt.outcome for attempt in email.recipients[0].attempts] == statuses
