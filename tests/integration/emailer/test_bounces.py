"""Bounces on a real database: they find their recipient, and their report is recorded once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chassis.deadlines import Deadline
from chassis.errors import NotFound, Overloaded
from contracts.emails import BounceRecorded, Email, RecordBounce, SendEmail
from contracts.suppressions import ListSuppressions, Suppression
from emailer.bounces.answers import MOST_UNDER_WAY, BounceAnswers
from emailer.bounces.reader import MOST_OF_OWNER
from emailer.bounces.repository import MOST_BOUNCES
from emailer.bounces.return_path import ReturnPath
from emailer.sending.smtp import SmtpRelay
from emailer.suppression.rules import SuppressionTerms
from support import postfix
from support.doubles import smtp as double
from support.doubles.post_office import OWNER, DispatcherTerms, PostOffice, mail
from support.doubles.smtp import SmtpServer, Step
from support.waiting import until

READER = "reader@example.com"
PATHS = ReturnPath("bounces.example.com", (b"k" * 32,))
TERMS = DispatcherTerms(return_path=PATHS)
REPORT = """\
Content-Type: multipart/report; boundary="B"

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; reader@example.com
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}

--B--
"""


async def record(
    post_office: PostOffice, recipient: str, content: bytes, *, paths: ReturnPath = PATHS
) -> BounceRecorded:
    answers = BounceAnswers(
        *(post_office.postgres, paths, post_office.bounce_reader),
        terms=SuppressionTerms(soft_failures=2),
        changed=lambda: None,
    )
    request = RecordBounce(recipient=recipient, content=base64.b64encode(content).decode())
    return await answers.record(request, Deadline.after(30))


async def bounce(
    post_office: PostOffice, command: SendEmail, said: str, *, action: str = "failed"
) -> BounceRecorded:
    recipient = PATHS.address(command.email_id, 0, sender="")
    status = said.split()[1]
    return await record(
        post_office, recipient, REPORT.format(action=action, status=status, said=said).encode()
    )


async def delivered(post_office: PostOffice, **fields: Any) -> SendEmail:
    command = mail(**fields)
    await post_office.accept(command)
    async with post_office.delivering(TERMS):
        await post_office.reaches(command, "delivered")
    return command


async def suppressed(post_office: PostOffice) -> list[Suppression]:
    return (await post_office.suppressions.list(ListSuppressions(owner_id=OWNER), Deadline.after(30))).data


async def test_a_mail_leaves_with_a_return_path_that_names_its_recipient(post_office: PostOffice) -> None:
    command = await delivered(post_office, to=[READER, "b@example.com"])
    named = {(PATHS.read(received.sender), received.recipient) for received in post_office.server.received}
    assert named == {((command.email_id, 0), READER), ((command.email_id, 1), "b@example.com")}
    assert {str(received.message["from"]) for received in post_office.server.received} == {
        "Tickwire <no-reply@tickwire.example>"
    }


async def test_a_bounce_fails_its_recipient_and_is_logged_announced_and_counted_once(
    post_office: PostOffice,
) -> None:
    command = await delivered(post_office)
    said = "550 5.1.1 no such user"
    found = [await bounce(post_office, command, said) for _ in range(2)]
    assert [(one.kind, one.is_new) for one in found] == [("hard", True), ("hard", False)]
    email = await post_office.read(command)
    assert (email.status, email.recipients[0].status) == ("failed", "failed")
    assert reported(email) == [("bounced", READER, f"hard: 5.1.1 {said}")]
    assert [event["status"] for event in await post_office.events()] == ["delivered", "failed"]
    (suppression,) = await suppressed(post_office)
    assert (suppression.address, suppression.origin, suppression.email_id) == (
        *(READER, "bounce", command.email_id),
    )


def reported(email: Email) -> list[tuple[str, str | None, str]]:
    return [(one.kind, one.recipient, one.detail) for one in email.timeline if one.kind == "bounced"]


async def test_soft_bounces_are_counted_and_policy_is_not(post_office: PostOffice) -> None:
    commands = [await delivered(post_office) for _ in range(4)]
    for command, said in zip(
        commands,
        ("550 5.7.1 spam", "550 5.7.1 spam", "452 4.2.2 full", "552 5.2.2 full"),
        strict=True,
    ):
        assert await suppressed(post_office) == []
        await bounce(post_office, command, said)
        assert (await post_office.read(command)).status == "failed"
    assert [one.origin for one in await suppressed(post_office)] == ["bounce"]


async def test_the_acceptance_by_the_relay_does_not_contradict_a_bounce(post_office: PostOffice) -> None:
    for number in range(2):
        assert len(await suppressed(post_office)) == 0
        command = await delivered(post_office)
        await bounce(post_office, command, "550 5.2.1 disabled")
        assert len(await suppressed(post_office)) == number


async def test_a_delay_changes_nothing_and_a_late_delivery_is_recorded(post_office: PostOffice) -> None:
    post_office.server.script(READER, Step("rcpt", "550 5.1.1 no such user"))
    command = mail()
    await post_office.accept(command)
    async with post_office.delivering(TERMS):
        await post_office.reaches(command, "failed")
    assert (await bounce(post_office, command, "450 4.4.1 later", action="delayed")).kind == "delayed"
    assert (await post_office.read(command)).status == "failed"
    await bounce(post_office, command, "250 2.0.0 there", action="delivered")
    assert (await post_office.read(command)).status == "delivered"
    assert await suppressed(post_office) == []


async def test_a_return_path_that_is_not_signed_here_or_not_known_is_not_found(
    post_office: PostOffice,
) -> None:
    command = mail()
    for recipient in (
        "reader@example.com",
        ReturnPath("bounces.example.com", (b"x" * 32,)).address(command.email_id, 0, sender=""),
        PATHS.address(command.email_id, 0, sender=""),
    ):
        with pytest.raises(NotFound):
            await record(post_office, recipient, b"")


async def test_a_recipient_has_a_bounded_number_of_bounces(post_office: PostOffice) -> None:
    command = await delivered(post_office)
    for number in range(MOST_BOUNCES + 2):
        await bounce(post_office, command, f"450 4.4.{number} later", action="delayed")
    assert len(reported(await post_office.read(command))) == MOST_BOUNCES


async def test_a_hard_bounce_counts_however_many_others_came_before_it(post_office: PostOffice) -> None:
    command = await delivered(post_office)
    for number in range(MOST_BOUNCES + 2):
        await bounce(post_office, command, f"450 4.4.{number} later", action="delayed")
    found = [await bounce(post_office, command, f"550 5.1.1 no such user {number}") for number in range(3)]
    assert [one.is_new for one in found] == [True, False, False]
    email = await post_office.read(command)
    assert (email.status, len(reported(email))) == ("failed", MOST_BOUNCES + 1)
    assert [one.address for one in await suppressed(post_office)] == [READER]


async def test_a_soft_bounce_followed_by_a_hard_one_counts_as_hard(
    post_office: PostOffice,
) -> None:
    command = await delivered(post_office)
    await bounce(post_office, command, "452 4.2.2 full")
    assert await suppressed(post_office) == []
    await bounce(post_office, command, "550 5.1.1 no such user")
    assert [(one.origin, one.email_id) for one in await suppressed(post_office)] == [
        ("bounce", command.email_id)
    ]


async def test_a_bounce_that_could_have_no_effect_is_not_read(post_office: PostOffice) -> None:
    command = await delivered(post_office)
    await bounce(post_office, command, "550 5.1.1 no such user")
    parts = (post_office.postgres, PATHS, post_office.bounce_reader)
    answers = BounceAnswers(*parts, terms=SuppressionTerms(), changed=lambda: None)
    recipient = PATHS.address(command.email_id, 0, sender="")
    said = REPORT.format(action="failed", status="5.1.1", said="550 5.1.1 no such user").encode()

    async def again(content: bytes) -> BounceRecorded:
        request = RecordBounce(recipient=recipient, content=base64.b64encode(content).decode())
        return await answers.record(request, Deadline.after(30))

    # Nothing is read while somebody holds the turn.
    turns = post_office.bounce_reader.turns
    async with turns.turn("somebody"):
        assert await asyncio.wait_for(again(said), 5) == BounceRecorded(kind="hard", is_new=False)
        waiting = [asyncio.create_task(again(b"%d" % number)) for number in range(MOST_OF_OWNER)]
        await until(lambda: turns.held_by(OWNER) == MOST_OF_OWNER)
    found = await asyncio.gather(*waiting)
    assert {(one.kind, one.is_new) for one in found} == {("other", True)}
    for number in range(MOST_BOUNCES):
        await again(b"more %d" % number)
    async with turns.turn("somebody"):
        full = await asyncio.wait_for(again(said + b"x"), 5)
    assert (full.kind, full.is_new) == ("other", False)


async def test_bounces_of_one_owners_mails_leave_room_for_those_of_others(post_office: PostOffice) -> None:
    commands = [mail(owner_id=f"owner-{number}") for number in range(1 + MOST_UNDER_WAY - MOST_OF_OWNER)]
    await post_office.accept(*commands)
    parts = (post_office.postgres, PATHS, post_office.bounce_reader)
    answers, turns = BounceAnswers(*parts, terms=SuppressionTerms(), changed=lambda: None), parts[2].turns

    def submit(command: SendEmail, number: int) -> asyncio.Task[BounceRecorded]:
        content = base64.b64encode(b"I am away until the %d." % number).decode()
        request = RecordBounce(recipient=PATHS.address(command.email_id, 0, sender=""), content=content)
        return asyncio.create_task(answers.record(request, Deadline.after(30)))

    async with turns.turn("somebody"):
        waiting = [submit(commands[0], number) for number in range(MOST_OF_OWNER)]
        await until(lambda: turns.waiting == MOST_OF_OWNER)
        with pytest.raises(Overloaded, match="of one owner's mails"):
            await submit(commands[0], MOST_OF_OWNER)
        waiting += [submit(command, 0) for command in commands[1:]]
        await until(lambda: turns.waiting == MOST_UNDER_WAY)
        with pytest.raises(Overloaded, match="Too many bounces are being read"):
            await submit(commands[-1], 1)
    assert {(one.kind, one.is_new) for one in await asyncio.gather(*waiting)} == {("other", True)}


@pytest.fixture
async def next_hop() -> AsyncIterator[SmtpServer]:
    async with double.running() as running:
        yield running


@pytest.mark.root
async def test_a_report_of_postfix_on_an_unknown_user_comes_back_to_its_recipient(
    post_office: PostOffice, next_hop: SmtpServer, certificate: Path
) -> None:
    next_hop.script(READER, Step("rcpt", "550 5.1.1 <reader@example.com>: unknown user"))
    command = mail()
    await post_office.accept(command)
    async with postfix.running(next_hop=next_hop.port, certificate=certificate) as port:
        relay = SmtpRelay("127.0.0.1", port, tls="off", timeout_s=10)
        async with post_office.delivering(DispatcherTerms(return_path=PATHS, relay=lambda _: relay)):
            await post_office.reaches(command, "delivered")
        # The next hop is the mail server of the bounces' domain, too.
        await until(lambda: next_hop.received)
    (report,) = next_hop.received
    assert (report.sender, PATHS.read(report.recipient)) == ("", (command.email_id, 0))
    assert (await record(post_office, report.recipient, report.content)).kind == "hard"
    email = await post_office.read(command)
    assert email.status == "failed"
    assert "5.1.1 <reader@example.com>: unknown user" in reported(email)[0][2]
    assert [one.address for one in await suppressed(post_office)] == [READER]
