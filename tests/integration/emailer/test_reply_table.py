"""What follows from each reply: every stage, with every kind of reply, on a new session and on a kept one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, get_args

import pytest
from structlog.testing import capture_logs

from contracts.emails import SendEmail
from emailer.sending.attempts import Patience
from support.doubles.post_office import DispatcherTerms, PostOffice, mail
from support.doubles.smtp import HANG_UP, SAY_NOTHING, Stage, Step

LOGIN = ("tickwire", "password")
STAGES: tuple[Stage, ...] = get_args(Stage)
GONE = ("550 5.1.1 no such user", "550 5.1.2 no such host", "550 5.1.10 null MX")
TOO_MUCH = ("552 5.3.4 message too big", "550 5.6.7 needs SMTPUTF8", "552 message size limit exceeded")
TEMPORARY = ("450 4.7.1 greylisted", "451 4.3.0 not now", "452 4.2.2 mailbox full", "454 4.7.0 TLS not now")
# What is out of step with the conversation, or about the session.
OF_SESSIONS = (
    "421 4.3.2 shutting down",
    "503 5.5.1 command out of sequence",
    "450 4.3.2 too many messages in this session",
    "451 4.4.2 idle for too long",
)
LOGINS = ("530 5.7.0 authentication required", "535 5.7.8 bad credentials")


class Consequence(NamedTuple):
    """What follows from a reply: the outcomes of the attempts, how many of them count, and suppression."""

    outcomes: tuple[str, ...]
    counted: int
    is_suppressed: bool = False


DELIVERED = Consequence(("delivered",), 1)
DEFERRED = Consequence(("deferred", "delivered"), 2)
# The session's: tried again at once on a new one.
AT_ONCE = DELIVERED
# The sender waits, and no attempt counts.
SENDER_WAITS = Consequence(("deferred", "delivered"), 1)
FAILED = Consequence(("failed",), 1)
SUPPRESSED = Consequence(("failed",), 1, True)
AMBIGUOUS = Consequence(("ambiguous", "delivered"), 2)


def _of(stage: Stage, answer: str, *, is_kept: bool, is_logged_in: bool) -> Consequence:
    """Return what the table says about a reply."""
    before_dot = stage != "content"
    match answer:
        case "250 2.0.0 taken":
            return DELIVERED
        case "hang up":
            return (AT_ONCE if is_kept else DEFERRED) if before_dot else AMBIGUOUS
        case "say nothing":
            return DEFERRED if before_dot else AMBIGUOUS
        case _ if answer in OF_SESSIONS and before_dot and is_kept:
            return AT_ONCE
        case "450 4.3.2 too many messages in this session":
            return SENDER_WAITS if stage == "mail" else DEFERRED
        case "503 5.5.1 command out of sequence":
            # Without a login it is what some relays say instead of 530.
            return SENDER_WAITS if stage == "mail" and not is_logged_in else DEFERRED
        case "550 5.4.5 daily quota exceeded":
            return SENDER_WAITS if stage == "mail" else DEFERRED
        case "550 5.7.1 sender refused by policy":
            return SENDER_WAITS if stage == "mail" else FAILED
    if answer in LOGINS:
        return SENDER_WAITS if stage == "mail" else FAILED if is_logged_in else DEFERRED
    if answer in GONE:
        return SUPPRESSED if stage == "rcpt" else FAILED
    return DEFERRED if answer.startswith("4") else FAILED


REPLIES = (
    *(HANG_UP, SAY_NOTHING, *OF_SESSIONS),
    *("550 5.4.5 daily quota exceeded", "550 5.7.1 sender refused by policy", "554 refused"),
    *(*TEMPORARY, *LOGINS, *GONE, *TOO_MUCH),
)
REPLIES_AFTER_LOGIN = (*LOGINS, *OF_SESSIONS)


async def reached(post_office: PostOffice, command: SendEmail, status: str) -> Consequence:
    """Return what has followed for the mail once its status is `status`."""
    email = await post_office.reaches(command, status)
    # A mail that waits with its sender says so once more, without having been tried.
    attempts = [one for one in email.recipients[0].attempts if not one.smtp_reply.startswith("not tried")]
    async with post_office.postgres.connection() as connection:
        tries = await connection.fetchval("SELECT tries FROM recipients WHERE email_id = $1", email.id)
        suppressed = await connection.fetchval(
            "SELECT count(*) FROM suppressions WHERE owner_id = $1", command.owner_id
        )
    return Consequence(tuple(one.outcome for one in attempts), tries, bool(suppressed))


@pytest.mark.parametrize("is_logged_in", [False, True], ids=["no login", "logged in"])
@pytest.mark.parametrize("is_kept", [False, True], ids=["new session", "kept session"])
@pytest.mark.parametrize("stage", STAGES)
async def test_every_reply_has_what_the_table_says(
    post_office: PostOffice, stage: Stage, is_kept: bool, is_logged_in: bool
) -> None:
    server = post_office.server
    terms = DispatcherTerms(
        connections=1, deliveries=100 if is_kept else 1, timeout_s=0.4, patience=Patience(scale=0.0001)
    )
    if is_logged_in:
        server.login = LOGIN
        terms = replace(terms, relay=lambda relay: replace(relay, username=LOGIN[0], password=LOGIN[1]))
    replies = (
        REPLIES_AFTER_LOGIN
        if is_logged_in
        else [*REPLIES, *(["250 2.0.0 taken"] if stage == "content" else [])]
    )
    wanted = {answer: _of(stage, answer, is_kept=is_kept, is_logged_in=is_logged_in) for answer in replies}
    found: dict[str, Consequence] = {}
    with capture_logs() as lines:
        async with post_office.delivering(terms):
            # It leaves a session behind, as each of the others does at its end, and is of another owner.
            opener = mail(owner_id="opener")
            await post_office.accept(opener)
            await post_office.reaches(opener, "delivered")
            for number, answer in enumerate(replies):
                command = mail(owner_id=f"owner-{number}", to=[f"reader-{number}@{number}.example"])
                server.script(command.to[0], Step(stage, answer))
                await post_office.accept(command)
                found[answer] = await reached(post_office, command, wanted[answer].outcomes[-1])
    assert found == wanted
    # None of them is a reason to stop the mails of everybody.
    assert [line for line in lines if line["event"] == "route paused"] == []
