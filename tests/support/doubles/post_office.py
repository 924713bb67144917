"""A post office for the tests: the email service's own parts on a real database and a scripted relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from chassis import outbox
from chassis.broker.envelope import new_id
from chassis.broker.publisher import Publisher
from chassis.errors import DatabaseUnavailable
from chassis.parked import park_unpublishable
from chassis.postgres import Postgres
from contracts.domains import AllowedSenders
from contracts.emails import Email, SendEmail
from emailer.bounces.reader import BounceReader
from emailer.bounces.return_path import ReturnPath
from emailer.domains.keys import KeySafe
from emailer.domains.senders import Senders
from emailer.mails import intake, marking, repository
from emailer.mails.domain_limits import DomainLimits
from emailer.sending import lane_repository
from emailer.sending.attempts import Patience
from emailer.sending.dispatcher import Dispatcher
from emailer.sending.guard import RecipientGuard
from emailer.sending.lanes import Terms
from emailer.sending.rounds import Rounds
from emailer.sending.route import Route
from emailer.sending.smtp import SmtpRelay
from emailer.suppression.answers import SuppressionAnswers
from emailer.suppression.rules import SuppressionTerms
from emailer.templates import repository as templates
from emailer.templates.rendering import TemplateRenderer
from emailer.uploads import repository as uploads
from emailer.writing.preparing import MailPreparation
from emailer.writing.writer import MailWriter
from support.doubles import smtp as double
from support.waiting import until
from support.waiting_messages import waiting_messages

OWNER = "owner-1"
DEFAULT_SENDER = "Tickwire <no-reply@tickwire.example>"


@dataclass(frozen=True)
class DispatcherTerms:
    """The settings of a dispatcher of the tests: quick, and one minute of the schedule is 30 ms."""

    patience: Patience = field(default_factory=lambda: Patience(scale=0.0005))
    connections: int = 3
    window: int = 50
    window_bytes: int = 1 << 20
    lease_s: float = 30
    deliveries: int = 100
    timeout_s: float = 5
    pause_s: float = 0.05
    refusals_before_pause: int = 20
    allowed_recipients: str | None = None
    domain_limits: str = ""
    senders: Callable[[], Senders] = lambda: senders()
    suppression: SuppressionTerms = field(default_factory=SuppressionTerms)
    return_path: ReturnPath = field(default_factory=ReturnPath)
    relay: Callable[[SmtpRelay], SmtpRelay] = lambda relay: relay
    other_relays: tuple[SmtpRelay, ...] = ()


def senders(allowed: str = "", safe: KeySafe | None = None) -> Senders:
    """Return the rules about senders; by default everybody may send as anybody."""
    return Senders(AllowedSenders.read(allowed), default_sender=DEFAULT_SENDER, safe=safe)


def mail(**fields: Any) -> SendEmail:
    """Return a command to send a mail to `reader@example.com`."""
    usual = {
        "email_id": new_id(),
        "owner_id": OWNER,
        "to": ["reader@example.com"],
        "subject": "Hello",
        "text": "Hello reader\n",
        "accepted_at": datetime.now(UTC),
    }
    return SendEmail.model_validate(usual | fields)


@dataclass(frozen=True)
class OfficeWorkers:
    """What works in processes of its own, which start when they are first needed."""

    renderer: TemplateRenderer = field(default_factory=TemplateRenderer)
    writer: MailWriter = field(default_factory=MailWriter)
    bounce_reader: BounceReader = field(default_factory=BounceReader)

    async def close(self) -> None:
        """End all processes."""
        await self.renderer.close()
        await self.writer.close()
        await self.bounce_reader.close()


class PostOffice:
    """Stores mails, runs dispatchers, and reads what the record says."""

    def __init__(
        self, postgres: Postgres, server: double.SmtpServer, *, dsn: str, workers: OfficeWorkers
    ) -> None:
        self.dsn = dsn
        self.postgres = postgres
        self.server = server
        self.renderer = workers.renderer
        self.writer = workers.writer
        self.bounce_reader = workers.bounce_reader
        self.preparation = MailPreparation(postgres, self.renderer, self.writer)

    async def accept(self, *commands: SendEmail) -> None:
        """Store the mails of `commands`."""
        async with self.postgres.transaction() as connection:
            accepted = intake.accept_all(
                commands,
                default_sender=DEFAULT_SENDER,
                expires_after_s=86_400,
                there=intake.KnownParts(
                    await uploads.find(connection, intake.uploads_of(commands)),
                    await uploads.read_parcels(connection, intake.parcels_of(commands)),
                    await templates.resolve(connection, intake.templates_of(commands)),
                ),
            )
            accepted = await marking.marked(connection, accepted)
            await repository.store(connection, accepted, traces=[(None, None)] * len(accepted))

    async def claim(self, *, most: int = 10, lease_s: float = 60) -> list[asyncpg.Record]:
        """Take what is ready as another process would."""
        terms = Terms(new_id(), lease_s, 1 << 20)
        async with self.postgres.transaction() as connection:
            rounds = Rounds()
            await rounds.look(connection)
            found = {lane: due_from for turn in rounds.streams for lane, due_from in turn.lanes(most).items()}
            divided = dict.fromkeys(found, most)
            return await lane_repository.claim(connection, divided, due_from=found, most=most, terms=terms)

    async def read(self, command: SendEmail) -> Email:
        """Return the mail as its owner sees it."""
        async with self.postgres.connection() as connection, repository.snapshot(connection):
            found = await repository.find(connection, command.email_id, owner_id=command.owner_id)
        assert found is not None
        return found

    async def reaches(self, command: SendEmail, status: str) -> Email:
        """Wait until the mail's status is `status`, and recorded as such."""
        seen: list[Email] = []

        async def reached() -> bool:
            # A test may have cut this very connection.
            with contextlib.suppress(DatabaseUnavailable):
                seen.append(await self.read(command))
            return bool(seen) and seen[-1].status == status

        await until(reached, what=lambda: f"{status}: {seen[-1:]}")
        return seen[-1]

    @property
    def suppressions(self) -> SuppressionAnswers:
        """The answers about suppressions."""
        return SuppressionAnswers(self.postgres, most_of_owner=SuppressionTerms().most_of_owner)

    async def events(self) -> list[dict[str, Any]]:
        """Return the events in the outbox, oldest first."""
        async with self.postgres.connection() as connection:
            messages = await waiting_messages(connection)
        return [orjson.loads(message.body) for message in messages]

    async def has_waiting_lock(self) -> bool:
        """Return whether a transaction waits for a lock of another."""
        async with self.postgres.connection() as connection:
            found = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        return bool(found)

    async def cut_database_connections(self) -> None:
        """Break every connection to the database except the one that runs this."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()

    def dispatcher(self, terms: DispatcherTerms = DispatcherTerms()) -> tuple[Dispatcher, Route]:
        """Return a dispatcher on this database that hands over to the scripted relay."""
        relay = SmtpRelay(
            "127.0.0.1", self.server.port, tls="off", timeout_s=terms.timeout_s, dot_timeout_s=terms.timeout_s
        )
        route = Route(
            [terms.relay(relay), *terms.other_relays],
            deliveries=terms.deliveries,
            idle_s=30,
            pause_s=terms.pause_s,
            authentication_pause_s=terms.pause_s,
        )
        dispatcher = Dispatcher(
            self.postgres,
            route,
            outbox.OutboxRelay(self.postgres, Publisher("amqp://127.0.0.1:1/"), park=park_unpublishable),
            patience=terms.patience,
            connections=terms.connections,
            window=terms.window,
            window_bytes=terms.window_bytes,
            lease_s=terms.lease_s,
            refusals_before_pause=terms.refusals_before_pause,
            guard=RecipientGuard.read(terms.allowed_recipients),
            senders=terms.senders(),
            suppression=terms.suppression,
            preparation=self.preparation,
            return_path=terms.return_path,
            domain_limits=DomainLimits.read(terms.domain_limits),
            poll_s=0.05,
        )
        return dispatcher, route

    @asynccontextmanager
    async def delivering(self, terms: DispatcherTerms = DispatcherTerms()) -> AsyncIterator[Dispatcher]:
        """Run a dispatcher for the length of the block, and stop it as the service does."""
        dispatcher, route = self.dispatcher(terms)
        task = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
            await dispatcher.drain(5)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            route.close()


def with_relay(**fields: Any) -> DispatcherTerms:
    """Return terms with another relay."""
    return DispatcherTerms(relay=lambda relay: replace(relay, **fields))
