"""One attempt at a recipient: the rendered mail is sent over a kept session, and the reply decides."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from chassis import logging, spans
from chassis.errors import Unavailable
from chassis.spans import SpanRecorder
from emailer.bounces.return_path import ReturnPath
from emailer.errors import (
    AuthenticationRefused,
    ConnectionLost,
    RelayUnreachable,
    TemplateFailed,
    TooLate,
    UnwritableMail,
)
from emailer.mails.stored_mail import AttemptRecord
from emailer.sending import attempts, outcomes
from emailer.sending.attempts import Job, Patience, RecipientOutcome
from emailer.sending.breaker import RefusalBreaker
from emailer.sending.outcomes import SmtpAnswer
from emailer.sending.refused_senders import RefusedSenders
from emailer.sending.route import Route
from emailer.sending.smtp import Envelope, SmtpRelay, SmtpSession
from emailer.writing.rendered import RenderedMails

log = logging.get(__name__)


class TakeSession(Protocol):
    """Returns a session with a relay that is none of `without`."""

    async def __call__(self, *, without: Collection[SmtpRelay] = ()) -> SmtpSession:
        """Raise `RelayUnreachable` or `AuthenticationRefused`."""


# A mail that cannot be built now is tried again this much later, unless the error says when.
_A_WHILE_S = 1.0


class MailDelivery:
    """Makes attempts. A failure of the route pauses it, and returns the recipient with no attempt counted."""

    def __init__(
        self,
        route: Route,
        rendered: RenderedMails,
        patience: Patience,
        breaker: RefusalBreaker,
        return_path: ReturnPath,
    ) -> None:
        self._route = route
        self._return_path = return_path
        self._breaker = breaker
        self._rendered = rendered
        self._patience = patience
        self._refused = RefusedSenders("policy", scale=patience.scale)
        self._limited = RefusedSenders("limited", scale=patience.scale)
        # Senders nearly all of whose mails were refused of late.
        self._unwanted = RefusedSenders("refusals", scale=patience.scale)

    async def attempt(
        self, job: Job, *, ready: Callable[[], Awaitable[RecipientOutcome | None]]
    ) -> RecipientOutcome:
        """Try to hand the mail over for one recipient, and return the outcome.

        `ready` is called once the mail's content is available; if it returns an outcome, nothing is sent.
        """
        started_ns = time.time_ns()
        paused, sender = (self._refused, self._limited, self._unwanted), job.sender
        if (waiting := next(filter(None, (each.of(sender) for each in paused)), None)) is not None:
            wait_s, words = waiting
            text = f"not tried: mails of this sender wait, because the relay said: {words}"
            noted = replace(self.draft(), host="", text=text, was_made=False)
            return attempts.sender_refused(job, noted=noted, wait_s=wait_s)
        try:
            content = await self._rendered.content(job.mail)
            outcome = await ready() or await self._deliver(job, content)
        except (RelayUnreachable, AuthenticationRefused):
            return attempts.given_back(job, at=datetime.now(UTC))
        except TooLate:
            return attempts.expired(job)
        except TemplateFailed as error:
            return attempts.unrendered(job, error.described, draft=self.draft())
        except UnwritableMail as error:
            log.error("mail cannot be built", email_id=str(job.mail.id), reason=str(error))
            draft = replace(self.draft(), host="")
            return self._interrupted(job, f"not sent: {error}", after_dot=False, draft=draft)
        except Unavailable as error:
            wait_s = _A_WHILE_S if error.retry_after_s is None else error.retry_after_s
            return attempts.put_off(job, until=datetime.now(UTC) + timedelta(seconds=wait_s))
        except Exception as error:
            log.exception("delivery failed", email_id=str(job.mail.id))
            reason = f"internal error: {type(error).__name__}"
            return self._interrupted(job, reason, after_dot=False, draft=self.draft())
        if outcome.attempt is not None:
            _report(outcome, outcome.attempt, started_ns)
        return outcome

    def measure(self) -> None:
        """Update the gauges of owners whose mails wait."""
        self._refused.measure()
        self._limited.measure()
        self._unwanted.measure()

    def draft(self, *, host: str | None = None, tls: bool = False) -> AttemptRecord:
        """Return an attempt that is made now; its outcome is filled in later."""
        return AttemptRecord(datetime.now(UTC), host or self._route.host, "deferred", None, "", tls)

    async def _deliver(self, job: Job, content: bytes) -> RecipientOutcome:
        letter = job.mail.letter
        assert letter is not None  # mails without one are not attempted
        sender = self._return_path.address(
            *(job.mail.id, job.position), sender=letter.sender.address, host=job.mail.return_path_host
        )
        needs_utf8 = letter.needs_utf8 or not job.address.isascii()
        envelope = Envelope(sender, job.address, content, needs_utf8=needs_utf8)
        try:
            session, answer = await self._hand_over(envelope, until=job.mail.expires_at)
        except ConnectionLost as error:
            draft = self.draft(host=error.host, tls=error.tls)
            return self._interrupted(job, str(error), after_dot=error.after_dot, draft=draft)
        draft = self.draft(host=session.relay.name, tls=session.tls)
        rule, words = outcomes.rule_of(answer, self._patience.rules), str(answer.reply)
        is_limited = rule.verdict == "limited"
        # It may be a matter of the sender alone: while the mails of others leave, theirs must not wait.
        is_own = (
            rule.verdict in ("login-refused", "limited")
            and self._route.is_last(session.relay)
            and self._breaker.has_taken_of_others(job.mail.owner_id)
        )
        if rule.whose == "owner" or is_own:
            refused = self._limited if is_limited else self._refused
            # A limit ends by itself, and others may have used it up.
            wait_s = refused.note_refused(job.sender, words, is_longer=not is_limited)
            noted = replace(draft, code=answer.reply.code, text=answer.reply.text)
            return attempts.sender_refused(job, noted=noted, wait_s=wait_s)
        if rule.verdict in ("login-refused", "limited"):
            self._route.set_aside(session.relay, "limited" if is_limited else "authentication", words)
            self._breaker.note_pause(job.mail.owner_id)
            return attempts.given_back(job, at=datetime.now(UTC))
        if answer.stage != "mail":
            self._refused.note_taken(job.sender)
        pausing = None
        if rule.verdict == "delivered":
            self._breaker.note_taken(job.mail.owner_id)
            self._unwanted.note_taken(job.sender)
        elif rule.verdict == "failed" and rule.whose == "mail":
            pausing = self._breaker.note_refused(job.mail.owner_id, job.domain)
        if pausing == "route":
            self._route.pause("refusing", words)
        elif pausing == "owner":
            # What a wrong setting causes ends when it is corrected, and not with the next of longer waits.
            self._unwanted.note_refused(job.sender, words, is_longer=not self._breaker.is_distrusted)
        is_final = pausing is None and not self._breaker.is_distrusted
        return attempts.answered(job, answer, draft=draft, patience=self._patience, is_final=is_final)

    async def _hand_over(self, envelope: Envelope, *, until: datetime) -> tuple[SmtpSession, SmtpAnswer]:
        """Hand a mail over to the first relay that can carry it; return the last answer.

        A relay that accepts less than it announces, or announces nothing, says so in its reply to MAIL: it is
        asked for this mail no more. Raise `TooLate` when the mail expires before it is begun.
        """
        unable: list[SmtpRelay] = []
        while True:
            session, answer = await self._offer(envelope, unable, until=until)
            if answer.stage != "mail":
                return session, answer
            rule = outcomes.rule_of(answer, self._patience.rules)
            if (rule.whose, rule.verdict) != ("content", "failed"):
                return session, answer
            unable.append(session.relay)
            if not self._route.has_other(unable):
                return session, answer

    async def _offer(
        self, envelope: Envelope, unable: list[SmtpRelay], *, until: datetime
    ) -> tuple[SmtpSession, SmtpAnswer]:
        """Offer a mail to a relay; if a kept session turns out to be closed, retry at once on a new one.

        Silence says nothing about the session: a domain for which the relay waits would hold two connections
        in turn.
        """
        session = await self._session(envelope, self._route.take, unable)
        is_kept = session.deliveries > 0
        try:
            answer = await self._converse(session, envelope, until)
        except ConnectionLost as error:
            if error.after_dot or error.is_silent or not is_kept:
                raise
        else:
            if outcomes.rule_of(answer, self._patience.rules).verdict != "new-session":
                return session, answer
        session = await self._session(envelope, self._route.connect, unable)
        return session, await self._converse(session, envelope, until)

    async def _session(self, envelope: Envelope, take: TakeSession, unable: list[SmtpRelay]) -> SmtpSession:
        """Return a session with a relay that can carry the mail, or with any when none of them can.

        Relays that cannot are added to `unable`. Raise `ConnectionLost` when those that may be able to are
        away: the mail waits for them.
        """
        while True:
            try:
                session = await take(without=unable)
            except (RelayUnreachable, AuthenticationRefused) as error:
                if not unable:
                    raise
                raise ConnectionLost(
                    f"{unable[-1].name} cannot carry this mail, and no other relay lets us in: {error}",
                    after_dot=False,
                ) from error
            if session.obstacle(envelope) is None:
                return session
            unable.append(session.relay)
            if not self._route.has_other(unable):
                return session
            self._route.give_back(session)

    async def _converse(self, session: SmtpSession, envelope: Envelope, until: datetime) -> SmtpAnswer:
        if datetime.now(UTC) >= until:
            # The mail has expired while it waited for a connection.
            self._route.give_back(session)
            raise TooLate
        try:
            answer = await session.deliver(envelope)
        except BaseException as error:
            # After a cancellation or an error, the session's next reply would belong to this mail.
            self._route.drop(session)
            if isinstance(error, ConnectionLost):
                error.tls, error.host = session.tls, session.relay.name
            raise
        if outcomes.rule_of(answer, self._patience.rules).verdict == "new-session":
            # The next mail would get the same answer.
            self._route.drop(session)
        else:
            self._route.give_back(session)
        return answer

    def _interrupted(
        self, job: Job, reason: str, *, after_dot: bool, draft: AttemptRecord
    ) -> RecipientOutcome:
        return attempts.interrupted(job, reason, after_dot=after_dot, draft=draft, patience=self._patience)


def _report(outcome: RecipientOutcome, attempt: AttemptRecord, started_ns: int) -> None:
    if attempt.outcome == "delivered" and SpanRecorder.tracer is None and not logging.Verbosity.is_debug:
        # There may be a thousand deliveries a second; only undelivered mails are worth a log line.
        return
    spans.record(
        "deliver by SMTP",
        "client",
        outcome.job.mail.traceparent,
        started_ns=started_ns,
        ended_ns=time.time_ns(),
        attributes={
            "server.address": attempt.host,
            "tickwire.email_id": str(outcome.job.mail.id),
            "tickwire.attempt": outcome.job.tries + 1,
            "tickwire.outcome": attempt.outcome,
            "smtp.reply_code": attempt.code or 0,
            "smtp.reply": attempt.text,
        },
        failed=None if attempt.outcome == "delivered" else attempt.text or attempt.outcome,
        is_linked=True,
    )
    say = log.info if outcome.status in ("failed", "ambiguous", "held") else log.debug
    say(
        "mail " + outcome.status,
        email_id=str(outcome.job.mail.id),
        recipient=outcome.job.position,
        attempt=outcome.tries,
        code=attempt.code,
        reply=attempt.text,
    )
