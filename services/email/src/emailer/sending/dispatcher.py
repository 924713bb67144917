"""The loop from due rows to recorded outcomes: claim recipients, deliver to them, renew their leases."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from chassis import beats, logging, metrics, redaction, tracing
from chassis.broker.envelope import new_id
from chassis.outbox import OutboxRelay
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres, Row
from chassis.supervision import keep_going
from chassis.waits import until_set
from emailer.bounces.return_path import ReturnPath
from emailer.domains.senders import Senders
from emailer.mails import repository
from emailer.mails.domain_limits import DomainLimits
from emailer.sending import attempts, measuring, outcome_repository, suppressing
from emailer.sending.attempts import Job, Patience, RecipientOutcome
from emailer.sending.breaker import RefusalBreaker
from emailer.sending.delivery import MailDelivery
from emailer.sending.domain_rates import DomainRates
from emailer.sending.guard import RecipientGuard
from emailer.sending.lanes import Terms
from emailer.sending.recorder import OutcomeRecorder
from emailer.sending.rounds import Rounds
from emailer.sending.route import Route
from emailer.sending.turns import SendingTurns
from emailer.sending.waiting_recipients import WaitingRecipients
from emailer.sending.window import Window
from emailer.suppression import repository as suppressions
from emailer.suppression.rules import SuppressionTerms
from emailer.writing.preparing import MailPreparation
from emailer.writing.rendered import RenderedMails

log = logging.get(__name__)

_MEASURE_S = 5
# Between two claims while nothing is in hand and nothing has woken the dispatcher.
_IDLE_S = 5
_MOST_READY = 1000


class Dispatcher:
    """Keeps at most `window` recipients in hand, claimed under a lease that is renewed meanwhile.

    It is woken when mails are stored, and when a waiting one becomes due. Mails that another replica has
    stored or left behind are found within twice `poll_s` seconds.

    Every recipient in hand ends as an outcome at the recorder. If a process is killed, its leases run out,
    and another process takes its recipients over as ambiguous.
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
        refusals_before_pause: int,
        guard: RecipientGuard,
        senders: Senders,
        suppression: SuppressionTerms,
        preparation: MailPreparation,
        return_path: ReturnPath,
        domain_limits: DomainLimits,
        poll_s: float = 0.5,
    ) -> None:
        self._postgres = postgres
        self._route = route
        self._patience = patience
        self._connections = connections
        self._window = Window(window, most_bytes=window_bytes)
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._guard = guard
        self._senders = senders
        self._holder = new_id()
        self.recorder = OutcomeRecorder(
            *(postgres, outbox_relay), holder=self._holder, suppression=suppression, recorded=self._recorded
        )
        self._rendered = RenderedMails(preparation.fill, preparation.attach, preparation.writer.write)
        breaker = RefusalBreaker(refusals_before_pause)
        self._delivery = MailDelivery(route, self._rendered, patience, breaker, return_path)
        self._limits = domain_limits
        self._rates = DomainRates(postgres, domain_limits)
        self._turns = SendingTurns(
            connections,
            room_left=self._rendered.forget,
            most_of_domain=lambda domain: domain_limits.of(domain).connections,
            comes_last=breaker.is_blamed,
        )
        self._rounds, self._waiting = Rounds(), WaitingRecipients()
        self._leased_until = 0.0
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._resume_at, self._has_left = window, False
        self._stopping = False

    @property
    def is_route_paused(self) -> bool:
        """Whether nothing is sent because the relay cannot be used."""
        return self._route.is_paused

    def wake(self) -> None:
        """Note that a recipient may be due now, or that a due time has changed."""
        self._wake.set()
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        parts = {
            "claiming of mails": self._claim_forever,
            "lining up of mails": self._make_ready,
            "recording of outcomes": self.recorder.run,
            "ending of late mails": self.recorder.expire_late,
            "leases of mails": self._maintain,
        }
        async with asyncio.TaskGroup() as tasks:
            for name, part in parts.items():
                tasks.create_task(keep_going(name, part))
            for _ in range(self._connections):
                tasks.create_task(keep_going("delivery of mails", self._work))

    async def drain(self, grace_s: float) -> None:
        """Claim nothing more, give back what has not begun, and wait until all outcomes are recorded."""
        self._stopping = True
        for job in self._turns.take_all():
            self._give_back(job)
        end = time.monotonic() + grace_s
        while self._window and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _make_ready(self) -> None:
        """Have recipients that become due claimed, and those that expire ended, until cancelled."""
        while True:
            self._changed.clear()
            began, next_s, is_more = time.monotonic(), beats.due_in_s(2 * self._poll_s), False
            with contextlib.suppress(*DATABASE_FAILURES):
                async with self._postgres.connection() as connection:
                    look = await self._waiting.line_up(connection, most=_MOST_READY, seen=self._rounds.seen)
                if look.has_arrivals or self._rounds.has_any:
                    self._wake.set()
                if look.expires_in_s <= 0:
                    self.recorder.wake_for_late()
                next_s = max(0, min(next_s, look.due_in_s, look.expires_in_s))
                is_more = look.lined_up == _MOST_READY
            if not is_more:
                await until_set(self._changed, next_s)
                # However much is stored and recorded, the database is not queried more often than this.
                await asyncio.sleep(max(0.0, began + self._poll_s / 4 - time.monotonic()))

    async def _claim_forever(self) -> None:
        while True:
            await self._route.wait_open()
            await self.recorder.wait_writable()
            room = self._window.room
            is_full = room < 1 or self._rendered.held_bytes.total() >= self._window.most_bytes
            if not self._stopping and not is_full:
                self._wake.clear()
                if await self._claim(room):
                    continue
            # Once this few are in hand, there is room for a large claim again: a small one costs as much.
            count, bite = len(self._window), max(1, self._window.size // 4)
            self._resume_at = count - max(bite // 2, min(bite, count // 2))
            if self._has_left:
                # Owners at their share get nothing until some of it is done: do not look at each stored mail.
                await asyncio.sleep(self._poll_s / 20)
            pause_s = self._poll_s if self._window else _IDLE_S
            await until_set(self._wake, min(pause_s, self._rates.opens_in_s))
            self._wake.clear()

    async def _claim(self, room: int) -> bool:
        """Claim recipients from their lanes, a fair share for each stream, owner and domain.

        Return whether another claim is worthwhile: most of the recipients asked for were found.
        """
        leased_until = time.monotonic() + self._lease_s
        is_taken = False
        try:
            # One transaction: a claim without its mails would block them until its lease ends.
            async with self._rounds.lock, self._postgres.transaction() as connection:
                claimed, wanted = await self._take_shares(connection, room)
                # After an outage a lease of our own may have run out: that recipient is in hand already. One
                # whose outcome makes it due again stays in hand until the recorder has written that outcome.
                fresh = [
                    row
                    for row in claimed
                    if row["was"] != "sending" or (row["email_id"], row["position"]) not in self._window
                ]
                mails = await repository.read_mails(connection, list({row["email_id"] for row in fresh}))
                mails = await self._senders.identify(connection, mails)
                jobs = outcome_repository.jobs(fresh, mails)
                reasons = await suppressions.reasons(connection, {job.target for job in jobs})
            is_taken = True
        except DATABASE_FAILURES as error:
            log.warning("due mails cannot be read", reason=redaction.safe_message(error))
            await asyncio.sleep(1)
            return False
        finally:
            if not is_taken:
                # The claim was rolled back: its recipients are in their lanes again.
                self._rounds.forget()
        self._leased_until = min(leased_until, self._leased_until) if self._window else leased_until
        for job in jobs:
            self._begin(job, suppressed=reasons.get(job.target) or self._guard.refusal_of(job.address))
        return 0 < wanted <= 2 * len(claimed)

    async def _take_shares(self, connection: Connection, room: int) -> tuple[list[Row], int]:
        """Claim each stream's share of `room`; return the rows, and how many were asked for."""
        claimed: list[Row] = []
        wanted = 0
        # Whether lanes are left out because their owners are at their share.
        self._has_left = False
        shares = self._window.shares(self._rendered.held_bytes)
        await self._rounds.look(connection)
        for turn in self._rounds.streams:
            most = min(room - len(claimed), shares.room(turn.stream))
            found = turn.next(self._rates.is_closed) if most > 0 else ()
            divided = shares.divide(found, most_of_domain=self._most_of_domain, is_quick=self._turns.is_quick)
            self._has_left |= len(divided) < len(found)
            domains = [row["domain"] for row in claimed]
            divided = await self._rates.cut(connection, divided, claimed=domains)
            if divided:
                wanted += min(most, sum(divided.values()))
                most_bytes, bytes_of = shares.bytes_for({lane.owner_id for lane in divided})
                terms = Terms(self._holder, self._lease_s, most_bytes, bytes_of)
                rows = await turn.claim(connection, divided, most=most, terms=terms)
                shares.note(rows)
                claimed += rows
        return claimed, wanted

    def _most_of_domain(self, domain: str) -> int:
        return self._window.most_of_domain(
            is_quick=self._turns.is_quick(domain), connections=self._limits.of(domain).connections
        )

    def _begin(self, job: Job, *, suppressed: str | None) -> None:
        self._window.take(job)
        self._rendered.hold(job.mail)
        if job.was == "sending":
            self.recorder.add(attempts.fallen(job, draft=self._delivery.draft(), patience=self._patience))
        elif job.mail.expires_at <= datetime.now(UTC):
            self.recorder.add(attempts.expired(job))
        elif suppressed is not None:
            self.recorder.add(attempts.suppressed(job, suppressed, draft=self._delivery.draft()))
        elif job.mail.letter is None:
            log.error("stored mail cannot be read", message_id=str(job.mail.id), reason=job.mail.flaw)
            self.recorder.add(attempts.unreadable(job, draft=self._delivery.draft(), patience=self._patience))
        elif job.mail.refusal:
            metrics.EMAIL_SENDERS_REFUSED.labels("service").inc()
            self.recorder.add(attempts.refused(job, draft=self._delivery.draft()))
        elif job.mail.flaw:
            self.recorder.add(attempts.unsigned(job, draft=self._delivery.draft(), patience=self._patience))
        else:
            self._rates.hold(job)
            self._rendered.sign_ahead(job.mail)
            self._turns.put(job)

    async def _work(self) -> None:
        while True:
            job = await self._turns.take()
            try:
                if self._stopping or self._route.is_paused:
                    self._give_back(job)
                elif time.monotonic() >= self._leased_until:
                    # Another process may hold it by now; it comes back when its lease has ended.
                    self._let_go(job)
                else:
                    self.recorder.add(await self._attempt(job))
            finally:
                self._turns.done(job)

    async def _attempt(self, job: Job) -> RecipientOutcome:
        async def ready() -> RecipientOutcome | None:
            self._turns.ready(job)
            refused = await suppressing.look_again(self._postgres, job, draft=self._delivery.draft)
            return refused or await self._rates.begin(job)

        with tracing.during(job.mail.traceparent, job.mail.request_id):
            return await self._delivery.attempt(job, ready=ready)

    def _give_back(self, job: Job) -> None:
        self.recorder.add(attempts.given_back(job, at=datetime.now(UTC)))

    def _recorded(self, outcomes: Sequence[RecipientOutcome]) -> None:
        for outcome in outcomes:
            self._let_go(outcome.job)
        # Deferred recipients have a new due time.
        self._changed.set()
        if len(self._window) <= self._resume_at:
            self._wake.set()

    def _let_go(self, job: Job) -> None:
        self._rates.release(job)
        self._window.let_go(job)
        if self._rendered.release(job.mail):
            self._turns.let_go(job.mail.id)

    async def _maintain(self) -> None:
        """Renew the leases, close idle sessions and measure what is due, each at its own interval."""
        measured_at = renewed_at = time.monotonic()
        while True:
            await beats.following(min(1.0, self._lease_s / 6))
            self._route.close_idle()
            now = time.monotonic()
            try:
                if self._window and now - renewed_at >= self._lease_s / 3:
                    await self._renew()
                    renewed_at, self._leased_until = now, now + self._lease_s
                if now - measured_at >= _MEASURE_S:
                    measured_at = now
                    self._delivery.measure()
                    await measuring.measure(self._postgres, self._rounds, self._rates)
            except DATABASE_FAILURES as error:
                log.warning("leases could not be renewed", reason=redaction.safe_message(error))

    async def _renew(self) -> None:
        async with self._postgres.connection() as connection:
            keys = list(self._window)
            await outcome_repository.renew(connection, keys, holder=self._holder, lease_s=self._lease_s)
