"""From due rows to the relay and back: claim, render, hand over, report. The loop that delivers mail."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from chassis import logging, metrics, redaction, spans, tracing
from chassis.broker.envelope import new_id
from chassis.errors import DatabaseUnavailable
from chassis.outbox import OutboxRelay
from chassis.postgres import Postgres
from chassis.supervision import keep_going
from emailer import attempts, outcomes, repository
from emailer.attempts import Attempt, Job, Outcome, Patience
from emailer.errors import AuthenticationRefused, ConnectionLost, RelayUnreachable, SendingLimited
from emailer.outcomes import SmtpAnswer
from emailer.recorder import Recorder
from emailer.rendered import RenderedMails
from emailer.route import Route
from emailer.smtp import Envelope, Session

log = logging.get(__name__)

_MEASURE_S = 5
_MOST_COUNTED = 100_000


class Dispatcher:
    """Keeps at most `window` recipients in hand, claimed under a lease that is renewed while they are.

    It is woken when mails were stored, and looks by itself every `poll_s` seconds: for retries, for mails
    with a time of their own, and for what another replica left behind.

    Every recipient in hand ends as an outcome at the recorder; a process that is killed leaves leases that
    run out, and what it had in hand is taken over as ambiguous.
    """

    def __init__(
        self,
        postgres: Postgres,
        route: Route,
        outbox_relay: OutboxRelay,
        *,
        patience: Patience,
        connections: int,
        window: int,
        window_bytes: int,
        lease_s: float,
        poll_s: float = 0.5,
    ) -> None:
        self._postgres = postgres
        self._route = route
        self._patience = patience
        self._connections = connections
        self._window = window
        self._window_bytes = window_bytes
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._holder: UUID = new_id()
        self.recorder = Recorder(postgres, outbox_relay, holder=self._holder, recorded=self._recorded)
        self._hand: dict[tuple[UUID, int], Job] = {}
        self._rendered = RenderedMails()
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._leased_until = 0.0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._stopping = False

    @property
    def is_route_paused(self) -> bool:
        """Whether nothing is sent because the relay cannot be used."""
        return self._route.is_paused

    def wake(self) -> None:
        """Say that something may be due now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever."""
        parts = {
            "claiming of mails": self._claim_forever,
            "recording of outcomes": self.recorder.run,
            "leases of mails": self._maintain,
        }
        async with asyncio.TaskGroup() as tasks:
            for name, part in parts.items():
                tasks.create_task(keep_going(name, part))
            for _ in range(self._connections):
                tasks.create_task(keep_going("delivery of mails", self._work))

    async def drain(self, grace_s: float) -> None:
        """Take nothing more, give back what was not begun, and wait until all in hand is written down."""
        self._stopping = True
        while not self._waiting.empty():
            self._give_back(self._waiting.get_nowait())
        end = time.monotonic() + grace_s
        while self._hand and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _claim_forever(self) -> None:
        while True:
            await self._route.wait_open()
            await self.recorder.wait_writable()
            room = self._window - len(self._hand)
            # Small bites cost as much as big ones: wait until there is room for a good one.
            is_full = room < max(1, self._window // 4) or self._rendered.held_bytes >= self._window_bytes
            if self._stopping or is_full:
                await self._pause(self._room)
                continue
            self._wake.clear()
            if await self._claim(room) < room:
                await self._pause(self._wake)

    async def _pause(self, event: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), self._poll_s)
        event.clear()

    async def _claim(self, room: int) -> int:
        leased_until = time.monotonic() + self._lease_s
        try:
            jobs = await self._read_due(room)
        except (DatabaseUnavailable, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("due mails cannot be read", reason=redaction.safe_message(error))
            await asyncio.sleep(1)
            return 0
        self._leased_until = min(leased_until, self._leased_until) if self._hand else leased_until
        for job in jobs:
            self._begin(job)
        return len(jobs)

    async def _read_due(self, room: int) -> list[Job]:
        # One transaction: a claim without its mails would lie there until its lease is over.
        async with self._postgres.transaction() as connection:
            claimed = await repository.claim(
                connection,
                holder=self._holder,
                most=room,
                most_bytes=self._window_bytes - self._rendered.held_bytes,
                lease_s=self._lease_s,
            )
            # After an outage a lease of our own may have run out: that recipient is in hand already. One that
            # was due again by its outcome is in hand until the recorder says that this is written.
            fresh = [
                row
                for row in claimed
                if row["was"] != "sending" or (row["email_id"], row["position"]) not in self._hand
            ]
            if not fresh:
                return []
            mails = await repository.read_mails(connection, list({row["email_id"] for row in fresh}))
        return repository.jobs(fresh, mails)

    def _begin(self, job: Job) -> None:
        self._hand[job.key] = job
        self._rendered.hold(job.mail)
        if job.was == "sending":
            self.recorder.add(attempts.fallen(job, draft=self._draft(), patience=self._patience))
        elif job.mail.expires_at <= datetime.now(UTC):
            self.recorder.add(attempts.expired(job))
        elif job.mail.letter is None:
            log.error("mail not readable", message_id=str(job.mail.id), reason=job.mail.flaw)
            self.recorder.add(attempts.unreadable(job, draft=self._draft(), patience=self._patience))
        else:
            self._waiting.put_nowait(job)

    async def _work(self) -> None:
        while True:
            job = await self._waiting.get()
            if self._stopping or self._route.is_paused:
                self._give_back(job)
            elif time.monotonic() >= self._leased_until:
                # Somebody else may have it by now; it comes back as fallen.
                self._let_go(job)
            else:
                with tracing.during(job.mail.traceparent, job.mail.request_id):
                    await self._try(job)

    async def _try(self, job: Job) -> None:
        started_ns = time.time_ns()
        try:
            outcome = await self._deliver(job)
        except (RelayUnreachable, AuthenticationRefused, SendingLimited):
            self._give_back(job)
        except Exception as error:
            log.exception("delivery failed", email_id=str(job.mail.id))
            reason = f"internal error: {type(error).__name__}"
            self.recorder.add(self._interrupted(job, reason, after_dot=False, draft=self._draft()))
        else:
            self.recorder.add(outcome)
            _record_span(outcome, started_ns)
            _log_attempt(outcome)

    async def _deliver(self, job: Job) -> Outcome:
        letter = job.mail.letter
        assert letter is not None  # without one it was put aside when it was claimed
        envelope = Envelope(
            sender=letter.sender.address,
            recipient=job.address,
            content=await self._rendered.content(job.mail),
            needs_utf8=letter.needs_utf8 or not job.address.isascii(),
        )
        try:
            session, answer = await self._hand_over(envelope)
        except ConnectionLost as error:
            draft = self._draft(tls=error.tls)
            return self._interrupted(job, str(error), after_dot=error.after_dot, draft=draft)
        verdict = outcomes.judge(answer)
        if verdict == "login-refused":
            self._route.pause("authentication", str(answer.reply))
            raise AuthenticationRefused(str(answer.reply))
        if verdict == "limited":
            self._route.pause("limited", str(answer.reply))
            raise SendingLimited(str(answer.reply))
        return attempts.answered(job, answer, draft=self._draft(tls=session.tls), patience=self._patience)

    async def _hand_over(self, envelope: Envelope) -> tuple[Session, SmtpAnswer]:
        """Hand a mail over; where a kept session turns out to be over, at once again on a new one."""
        session = await self._route.take()
        is_kept = session.deliveries > 0
        try:
            answer = await self._converse(session, envelope)
        except ConnectionLost as error:
            if error.after_dot or not is_kept:
                raise
        else:
            if outcomes.judge(answer) != "new-session":
                return session, answer
        session = await self._route.connect()
        return session, await self._converse(session, envelope)

    async def _converse(self, session: Session, envelope: Envelope) -> SmtpAnswer:
        try:
            answer = await session.deliver(envelope)
        except BaseException as error:
            # Cancelled or broken, its next reply would belong to this mail.
            self._route.drop(session)
            if isinstance(error, ConnectionLost):
                error.tls = session.tls
            raise
        self._route.give_back(session)
        return answer

    def _interrupted(self, job: Job, reason: str, *, after_dot: bool, draft: Attempt) -> Outcome:
        return attempts.interrupted(job, reason, after_dot=after_dot, draft=draft, patience=self._patience)

    def _give_back(self, job: Job) -> None:
        self.recorder.add(attempts.given_back(job, at=datetime.now(UTC)))

    def _draft(self, *, tls: bool = False) -> Attempt:
        return Attempt(datetime.now(UTC), self._route.host, "deferred", None, "", tls)

    def _recorded(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._let_go(outcome.job)
        self._room.set()

    def _let_go(self, job: Job) -> None:
        if self._hand.get(job.key) is job:
            del self._hand[job.key]
        self._rendered.release(job.mail.id)

    async def _maintain(self) -> None:
        """Renew the leases, close idle sessions, count what is due; each in its time."""
        measured_at = renewed_at = time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, self._lease_s / 6))
            self._route.close_idle()
            try:
                if time.monotonic() - renewed_at >= self._lease_s / 3:
                    renewed_at = time.monotonic()
                    await self._renew(renewed_at)
                if time.monotonic() - measured_at >= _MEASURE_S:
                    measured_at = time.monotonic()
                    await self._measure()
            except (DatabaseUnavailable, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("leases not renewed", reason=redaction.safe_message(error))

    async def _renew(self, now: float) -> None:
        keys = list(self._hand)
        if keys:
            async with self._postgres.connection() as connection:
                await repository.renew(connection, keys, holder=self._holder, lease_s=self._lease_s)
        self._leased_until = now + self._lease_s

    async def _measure(self) -> None:
        async with self._postgres.connection() as connection:
            count, oldest_s = await repository.measure_due(connection, most=_MOST_COUNTED)
        metrics.EMAIL_DUE.set(count)
        metrics.EMAIL_OLDEST_DUE.set(oldest_s)


def _record_span(outcome: Outcome, started_ns: int) -> None:
    attempt = outcome.attempt
    assert attempt is not None
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


def _log_attempt(outcome: Outcome) -> None:
    attempt = outcome.attempt
    assert attempt is not None
    # Of deliveries there may be a thousand a second; that somebody gets no mail is worth a line.
    say = log.info if outcome.status in ("failed", "ambiguous") else log.debug
    say(
        "mail " + outcome.status,
        email_id=str(outcome.job.mail.id),
        recipient=outcome.job.position,
        attempt=outcome.tries,
        code=attempt.code,
        reply=attempt.text,
    )
