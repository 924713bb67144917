"""Each row of the outcome table, on a real database and a real SMTP server that misbehaves on command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts.emails import Email, SendEmail
from emailer.sending.attempts import Patience
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail, with_relay
from support.doubles.smtp import HANG_UP, HANG_UP_BEFORE_DOT, SAY_NOTHING, Step
from support.waiting import until

READER = "reader@example.com"


def outcomes(email: Email) -> list[str]:
    return [attempt.outcome for attempt in email.recipients[0].attempts]


async def test_a_taken_mail_is_delivered_and_keeps_the_raw_reply(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        email = await post_office.reaches(command, "delivered")
    attempt = email.recipients[0].attempts[0]
    assert (attempt.smtp_code, attempt.smtp_reply) == (250, "2.0.0 taken as 1")
    assert attempt.host == f"127.0.0.1:{post_office.server.port}"
    assert attempt.tls is False
    assert email.recipients[0].next_attempt_at is None
    assert [mail.message["subject"] for mail in post_office.server.received] == ["Hello"]


@pytest.mark.parametrize("answers", [None, "a@example.com", ["a@example.com", "B <b@example.com>"]])
async def test_replies_go_where_the_mail_says(
    post_office: PostOffice, answers: str | list[str] | None
) -> None:
    command = mail(reply_to=answers)
    await post_office.accept(command)
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
    (received,) = post_office.server.received
    expected = ", ".join(answers) if isinstance(answers, list) else answers
    assert received.message["reply-to"] == expected


async def test_a_changed_status_is_announced_in_the_outbox(post_office: PostOffice) -> None:
    post_office.server.script(READER, Step("rcpt", "451 later"))
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        await post_office.reaches(command, "delivered")
    events = await post_office.events()
    assert [event["status"] for event in events] == ["deferred", "delivered"]
    assert {(event["email_id"], event["owner_id"]) for event in events} == {(str(command.email_id), OWNER)}


@pytest.mark.parametrize(
    "step",
    [
        Step("mail", "451 4.3.0 not now"),
        Step("rcpt", "450 4.2.0 greylisted"),
        Step("rcpt", "421 4.3.2 shutting down"),
        Step("data", "452 4.3.1 disk full"),
        Step("content", "451 4.7.1 checking"),
    ],
    ids=lambda step: step.stage,
)
async def test_a_temporary_refusal_is_tried_again_later(post_office: PostOffice, step: Step) -> None:
    post_office.server.script(READER, step)
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["deferred", "delivered"]
    assert email.recipients[0].attempts[0].smtp_code == int(step.answer[:3])
    assert len(post_office.server.received) == 1


async def test_a_deferred_mail_shows_when_it_is_tried_next(post_office: PostOffice) -> None:
    post_office.server.script(READER, Step("rcpt", "450 4.7.1 Greylisted, try again in 300 seconds"))
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(patience=Patience(scale=1))):
        email = await post_office.reaches(command, "deferred")
    recipient = email.recipients[0]
    assert recipient.next_attempt_at == recipient.attempts[0].at + timedelta(seconds=300)


@pytest.mark.parametrize(
    "step",
    [
        Step("mail", "553 5.1.8 sender refused"),
        Step("rcpt", "550 5.1.1 no such user"),
        Step("data", "554 5.5.1 no"),
        Step("content", "550 5.7.1 looks like spam"),
    ],
    ids=lambda step: step.stage,
)
async def test_a_final_refusal_fails_at_once(post_office: PostOffice, step: Step) -> None:
    post_office.server.script(READER, step)
    command, next_one = mail(), mail(to=["next@example.com"])
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(connections=1)):
        email = await post_office.reaches(command, "failed")
        # The same connection serves the next mail.
        await post_office.accept(next_one)
        await post_office.reaches(next_one, "delivered")
    assert outcomes(email) == ["failed"]
    assert email.recipients[0].attempts[0].smtp_reply == step.answer[4:]
    assert post_office.server.connections == 1


@pytest.mark.parametrize(
    "step",
    [Step("mail", HANG_UP), Step("rcpt", HANG_UP), Step("data", HANG_UP), Step("rcpt", SAY_NOTHING)],
    ids=lambda step: f"{step.stage} {step.answer}",
)
async def test_a_connection_lost_before_the_mail_was_sent_defers(post_office: PostOffice, step: Step) -> None:
    post_office.server.script(READER, step)
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(timeout_s=0.3)):
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["deferred", "delivered"]
    assert email.recipients[0].attempts[0].smtp_code is None
    assert len(post_office.server.received) == 1


@pytest.mark.parametrize("answer", [HANG_UP, SAY_NOTHING, HANG_UP_BEFORE_DOT])
async def test_an_answer_lost_after_the_final_dot_is_ambiguous_and_repeated_with_the_same_id(
    post_office: PostOffice, answer: str
) -> None:
    post_office.server.script(READER, Step("content", answer))
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(timeout_s=0.3)):
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["ambiguous", "delivered"]
    identities = {mail.message["message-id"] for mail in post_office.server.received}
    assert identities == {f"<{command.email_id}@tickwire.example>"}


async def test_an_ambiguous_mail_is_held_when_the_settings_say_so(post_office: PostOffice) -> None:
    post_office.server.script(READER, Step("content", HANG_UP))
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(patience=Patience(scale=0.0005, on_ambiguous="hold"))):
        email = await post_office.reaches(command, "held")
    assert (email.recipients[0].status, email.recipients[0].next_attempt_at) == ("held", None)
    assert len(post_office.server.received) == 1


async def test_a_mail_whose_answer_is_lost_again_and_again_goes_out_three_times_and_is_held(
    post_office: PostOffice,
) -> None:
    post_office.server.script(READER, *[Step("content", HANG_UP)] * 5)
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        email = await post_office.reaches(command, "held")
    assert outcomes(email) == ["ambiguous"] * 3
    assert [copy.message["message-id"] for copy in post_office.server.received] == [email.message_id] * 3
    assert [event["status"] for event in await post_office.events()] == ["deferred", "held"]


async def test_a_refused_login_pauses_the_route_and_burns_no_attempt(post_office: PostOffice) -> None:
    post_office.server.login = ("tickwire", "new password")
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(with_relay(username="tickwire", password="old password")):
        await until(lambda: post_office.server.connections >= 2)
        assert (await post_office.read(command)).recipients[0].attempts == []
        post_office.server.login = ("tickwire", "old password")
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["delivered"]
    assert post_office.server.received[0].login == "tickwire"


async def test_a_relay_that_wants_a_login_pauses_the_route_and_burns_no_attempt(
    post_office: PostOffice,
) -> None:
    post_office.server.login = ("somebody", "else")
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering():
        await until(lambda: post_office.server.connections >= 2)
        post_office.server.login = None
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["delivered"]


async def test_a_relay_that_is_away_burns_no_attempt(post_office: PostOffice) -> None:
    await post_office.server.stop()
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(30)]
    await post_office.accept(*commands)
    async with post_office.delivering() as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
        email = await post_office.reaches(commands[0], "queued")
        assert email.recipients[0].attempts == []
        await post_office.server.start()
        emails = [await post_office.reaches(command, "delivered") for command in commands]
    assert [outcomes(email) for email in emails] == [["delivered"]] * 30


@pytest.mark.parametrize("greeting", ["554 go away", "421 too many connections", "nonsense"])
async def test_a_relay_that_refuses_the_connection_uses_up_no_attempt(
    post_office: PostOffice, greeting: str
) -> None:
    usual, post_office.server.greeting = post_office.server.greeting, greeting
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering() as dispatcher:
        await until(lambda: dispatcher.is_route_paused)
        post_office.server.greeting = usual
        email = await post_office.reaches(command, "delivered")
    assert outcomes(email) == ["delivered"]


async def test_one_refused_recipient_never_hides_another(post_office: PostOffice) -> None:
    post_office.server.script("b@example.com", Step("rcpt", "550 5.1.1 no such user"))
    command = mail(to=["a@example.com"], cc=["B <b@example.com>"], bcc=["c@example.com"])
    await post_office.accept(command)
    async with post_office.delivering():
        email = await post_office.reaches(command, "partially_delivered")
    assert [(r.address, r.kind, r.status) for r in email.recipients] == [
        ("a@example.com", "to", "delivered"),
        ("b@example.com", "cc", "failed"),
        ("c@example.com", "bcc", "delivered"),
    ]
    to_c = post_office.server.received_by("c@example.com")[0].message
    assert (to_c["to"], to_c["cc"], to_c["bcc"]) == ("a@example.com", "B <b@example.com>", None)
    assert {copy.message["message-id"] for copy in post_office.server.received} == {email.message_id}
    assert [event["status"] for event in await post_office.events()] == ["partially_delivered"]


async def test_a_mail_waits_for_its_time(post_office: PostOffice) -> None:
    start = datetime.now(UTC)
    # One whose time does not come, however long the others take on a busy machine.
    far = mail(to=["far@example.com"], send_at=start + timedelta(hours=1))
    soon, now = mail(send_at=start + timedelta(seconds=1)), mail(to=["other@example.com"])
    await post_office.accept(far, soon, now)
    async with post_office.delivering():
        await post_office.reaches(now, "delivered")
        email = await post_office.reaches(soon, "delivered")
        waiting = await post_office.read(far)
    assert (waiting.status, waiting.recipients[0].next_attempt_at) == ("queued", far.send_at)
    assert soon.send_at is not None
    assert email.recipients[0].attempts[0].at >= soon.send_at


async def test_a_mail_whose_time_is_over_expires_without_another_attempt(post_office: PostOffice) -> None:
    post_office.server.script(READER, *[Step("rcpt", "450 not now")] * 100)
    command = mail(expires_at=datetime.now(UTC) + timedelta(seconds=1.5))
    await post_office.accept(command)
    async with post_office.delivering(DispatcherTerms(patience=Patience(scale=0.005))):
        email = await post_office.reaches(command, "expired")
    assert set(outcomes(email)) == {"deferred"}
    assert [event["status"] for event in await post_office.events()] == ["deferred", "expired"]


async def test_a_stop_gives_back_mails_that_were_not_begun(post_office: PostOffice) -> None:
    post_office.server.delay_s = 0.05
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(40)]
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=1)):
        await until(lambda: len(post_office.server.received) >= 2)
    emails = [await post_office.read(command) for command in commands]
    delivered = [email for email in emails if email.status == "delivered"]
    assert {email.status for email in emails} == {"delivered", "queued"}
    assert len(delivered) == len(post_office.server.received)
    assert all(email.recipients[0].attempts == [] for email in emails if email.status == "queued")


async def test_connections_are_kept_and_bounded(post_office: PostOffice) -> None:
    commands = [mail(to=[f"reader-{number}@example.com"]) for number in range(60)]
    await post_office.accept(*commands)
    async with post_office.delivering(DispatcherTerms(connections=2, deliveries=15)):
        for command in commands:
            await post_office.reaches(command, "delivered")
    assert post_office.server.most_connections <= 2
    assert post_office.server.connections == 4


async def test_the_recipients_of_a_mail_share_its_bytes(post_office: PostOffice) -> None:
    await post_office.accept(mail(to=[f"reader-{n}@example.com" for n in range(10)], text="x" * 600_000))
    claimed = await post_office.claim()
    assert len(claimed) == 10


async def test_a_mail_is_taken_only_as_far_as_the_bytes_allow(post_office: PostOffice) -> None:
    commands = [mail(text="x" * 600_000, to=[f"reader-{number}@example.com"]) for number in range(4)]
    await post_office.accept(*commands)
    claimed = await post_office.claim()
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE recipients SET due_at = now(), status = 'queued'")
    assert len(claimed) == 2
    async with post_office.delivering():
        for command in commands:
            await post_office.reaches(command, "delivered")


async def test_a_mail_that_this_release_cannot_read_waits_and_delays_no_other(
    post_office: PostOffice,
) -> None:
    newer, others = mail(), [mail(), mail()]
    await post_office.accept(newer, *others)
    await _change_letter(
        post_office, newer, """jsonb_set(letter::jsonb, '{sender,group}', '"of a newer release"')"""
    )
    async with post_office.delivering():
        for command in others:
            await post_office.reaches(command, "delivered")
        email = await post_office.reaches(newer, "deferred")
        attempt = email.recipients[0].attempts[0]
        assert attempt.smtp_reply == "the mail is stored in a form that this release cannot read"
        assert (attempt.host, attempt.smtp_code) == ("", None)
        assert email.recipients[0].next_attempt_at is not None
        # Who can read it delivers it.
        await _change_letter(post_office, newer, "letter::jsonb #- '{sender,group}'")
        await post_office.reaches(newer, "delivered")
    assert len(post_office.server.received) == 3


async def test_a_mail_that_no_release_could_read_expires(post_office: PostOffice) -> None:
    command = mail()
    await post_office.accept(command)
    await _change_letter(post_office, command, "'[]'")
    async with post_office.delivering():
        await post_office.reaches(command, "deferred")
        async with post_office.postgres.connection() as connection:
            await connection.execute("UPDATE emails SET expires_at = now()")
            await connection.execute("UPDATE recipients SET expires_at = now()")
        email = await post_office.reaches(command, "expired")
    assert set(outcomes(email)) == {"deferred"}


async def _change_letter(post_office: PostOffice, command: SendEmail, letter: str) -> None:
    async with post_office.postgres.connection() as connection:
        await connection.execute(f"UPDATE emails SET letter = {letter} WHERE id = $1", command.email_id)


async def test_a_mail_of_hostile_html_to_many_costs_its_neighbours_nothing(post_office: PostOffice) -> None:
    hostile = mail(to=[f"reader-{n}@example.com" for n in range(20)], text=None, html="<!--" * 14_000)
    ordinary = mail(to=["other@example.com"])
    await post_office.accept(hostile, ordinary)
    async with post_office.delivering():
        await post_office.reaches(hostile, "delivered")
        await post_office.reaches(ordinary, "delivered")
    copies = [received.content for received in post_office.server.received if b"<!--" in received.content]
    assert len(copies) == 20
    assert len(set(copies)) == 1


async def test_a_staging_system_sends_only_to_the_recipients_that_it_lists(post_office: PostOffice) -> None:
    mixed = mail(to=["me@example.com", "customer@example.net"])
    other = mail(to=["customer@example.net"])
    await post_office.accept(mixed, other)
    async with post_office.delivering(DispatcherTerms(allowed_recipients="@example.com")):
        email = await post_office.reaches(mixed, "partially_delivered")
        await post_office.reaches(other, "suppressed")
    assert [recipient.status for recipient in email.recipients] == ["delivered", "suppressed"]
    assert "EMAIL_ALLOWED_RECIPIENTS" in email.recipients[1].attempts[0].smtp_reply
    assert [received.recipient for received in post_office.server.received] == ["me@example.com"]
