"""The parts of the service: made once, opened and closed in order."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from chassis.runtime import ServiceRuntime
from contracts.domains import AllowedSenders
from contracts.emails import RecordBounce
from contracts.topology import EMAIL
from contracts.uploads import OpenParcel, OpenUpload
from emailer import consumers
from emailer.bounces.answers import BounceAnswers
from emailer.bounces.reader import BounceReader
from emailer.bounces.return_path import ReturnPath
from emailer.domains import sealing
from emailer.domains.answers import DomainAnswers
from emailer.domains.checking import DomainChecks
from emailer.domains.lookups import DnsLookups, read_servers
from emailer.domains.records import RecordSettings
from emailer.domains.senders import Senders
from emailer.mails.domain_limits import DomainLimits
from emailer.retention.answers import RetentionAnswers
from emailer.retention.removal import keep_counting, keep_removing
from emailer.sending import hosts, outcomes, own_rules
from emailer.sending.attempts import Patience
from emailer.sending.dispatcher import Dispatcher
from emailer.sending.guard import RecipientGuard
from emailer.sending.raw import RawMails
from emailer.sending.route import Route
from emailer.sending.smtp import SmtpRelay
from emailer.settings import EmailSettings
from emailer.suppression.rules import SuppressionTerms
from emailer.templates.answers import TemplateAnswers
from emailer.templates.rendering import TemplateRenderer
from emailer.uploads.service import UploadLimits, UploadReceiver
from emailer.writing.preparing import MailPreparation
from emailer.writing.writer import MailWriter

# Messages received and not yet stored. A mail may have more than a megabyte, and the broker counts messages
# only, so these numbers bound the memory that a process needs for them.
_PREFETCH = 60
_BULK_PREFETCH = 20
_EXCESS_PREFETCH = 20
# Commands of an owner that wait here; what it sends beyond them goes on to `email.excess`, so that the
# commands of others, which are behind it in the queue, arrive soon. Three owners with as many fit into the
# prefetch.
_MOST_OF_OWNER = 1000


class Resources:
    """The runtime, the route to the relay and the dispatcher between them."""

    def __init__(self, settings: EmailSettings) -> None:
        self._grace_s = settings.shutdown_grace_s
        self._retention = settings.retention
        self._suppression = SuppressionTerms(
            days=settings.suppression_days, most_of_owner=settings.most_suppressions
        )
        self.runtime = ServiceRuntime(settings, service=EMAIL, package="emailer")
        postgres = self.runtime.postgres
        self.route = _route(settings)
        self.uploads = UploadReceiver(
            postgres,
            UploadLimits(settings.uploads_owner_bytes, settings.uploads_total_bytes, settings.upload_life_s),
        )
        self._safe = settings.key_safe
        domains = self._domains(settings)
        senders = Senders(
            AllowedSenders.read(settings.allowed_sender_domains),
            default_sender=settings.default_sender,
            safe=self._safe,
        )
        self.renderer = TemplateRenderer(size=settings.template_processes)
        self.writer = MailWriter(size=settings.writing_processes)
        preparation = MailPreparation(postgres, self.renderer, self.writer)
        templates = TemplateAnswers(postgres, self.renderer, most_of_owner=settings.templates_per_owner)
        self.bounce_reader = BounceReader()
        bounces = BounceAnswers(
            *(postgres, return_path_of(settings), self.bounce_reader),
            terms=self._suppression,
            changed=self._stored,
        )
        self.dispatcher = self._dispatcher(settings, senders, preparation)
        self.raw_mails = RawMails(postgres, senders, preparation)
        handlers = consumers.handlers(settings, committed=self._stored)
        self.runtime.consume(f"{EMAIL}.send", handlers, prefetch=_PREFETCH, most_of_owner=_MOST_OF_OWNER)
        # Handled at the same time: what waits in one queue delays nothing in the other.
        self.runtime.consume(f"{EMAIL}.excess", handlers, prefetch=_EXCESS_PREFETCH)
        self.runtime.consume(f"{EMAIL}.bulk", handlers, prefetch=_BULK_PREFETCH)
        self.runtime.answer(
            {
                **consumers.answers(settings, postgres, self.raw_mails, changed=self._stored),
                **domains.table,
                **RetentionAnswers(postgres, self._retention).table,
                OpenUpload: self.uploads.open,
                OpenParcel: self.uploads.open_parcel,
                **templates.table(),
                RecordBounce: bounces.record,
            }
        )
        self.runtime.on_database(self._start_delivery)

    def _dispatcher(
        self, settings: EmailSettings, senders: Senders, preparation: MailPreparation
    ) -> Dispatcher:
        return Dispatcher(
            self.runtime.postgres,
            self.route,
            self.runtime.relay,
            patience=Patience(
                settings.retry_scale,
                settings.on_ambiguous,
                outcomes.with_own(own_rules.read(settings.reply_rules)),
            ),
            connections=settings.smtp_connections,
            window=settings.window,
            window_bytes=settings.window_bytes,
            lease_s=settings.lease_s,
            guard=RecipientGuard.read(settings.allowed_recipients),
            senders=senders,
            suppression=self._suppression,
            preparation=preparation,
            return_path=return_path_of(settings),
            refusals_before_pause=settings.refusals_before_pause,
            domain_limits=DomainLimits.read(settings.domain_limits),
        )

    def _domains(self, settings: EmailSettings) -> DomainAnswers:
        postgres, announced = self.runtime.postgres, self.runtime.relay.wake
        records = RecordSettings(settings.spf_mechanisms, settings.return_path_target)
        self.domain_checks = DomainChecks(
            postgres,
            DnsLookups(read_servers(settings.dns_servers)),
            records,
            settings.check_schedule,
            announced=announced,
        )
        return DomainAnswers(
            postgres,
            self.domain_checks,
            self._safe,
            records,
            most_of_owner=settings.domains_per_owner,
            announced=announced,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start all background tasks; close everything in reverse order when the block ends.

        The relay is not part of readiness: mails are accepted and kept while it is unavailable. Its state is
        in the metrics `tickwire_email_route_paused` and `tickwire_email_due_recipients`.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.route.close)
            stack.push_async_callback(self.renderer.close)
            stack.push_async_callback(self.writer.close)
            stack.push_async_callback(self.bounce_reader.close)
            await stack.enter_async_context(self.runtime)
            try:
                yield
            finally:
                # Drained first: the database must still be open to record what was delivered.
                deadline = self.runtime.health.stop(self._grace_s)
                await self.dispatcher.drain(deadline.remaining_s())

    async def _start_delivery(self) -> None:
        tasks, postgres = self.runtime.tasks, self.runtime.postgres
        tasks.start("delivery", self.dispatcher.run())
        tasks.start("raw mails", self.raw_mails.run())
        tasks.supervise("removal of old mails", partial(keep_removing, postgres, self._retention))
        tasks.supervise("counts of mails", partial(keep_counting, postgres))
        tasks.supervise("removal of old uploads", self.uploads.keep_removing)
        tasks.supervise("records of sender domains", self.domain_checks.watch)
        if self._safe is not None:
            tasks.start("sealing of DKIM keys", sealing.renew(postgres, self._safe))

    def _stored(self) -> None:
        self.dispatcher.wake()
        # A mail that was refused at once has written an event into the outbox.
        self.runtime.relay.wake()


def relays_of(settings: EmailSettings) -> list[SmtpRelay]:
    """Return the relays that `settings` describe; they differ in host and port."""
    password = settings.smtp_password
    return [
        SmtpRelay(
            host=host,
            port=port or settings.smtp_port,
            tls=settings.smtp_tls,
            ca_file=settings.smtp_ca_file,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else "",
            hello=settings.smtp_hello or socket.gethostname(),
            timeout_s=settings.smtp_timeout_s,
        )
        for host, port in hosts.read(settings.smtp_host)
    ]


def _route(settings: EmailSettings) -> Route:
    return Route(
        relays_of(settings),
        deliveries=settings.smtp_deliveries_per_connection,
        idle_s=settings.smtp_idle_s,
        pause_s=settings.route_pause_s,
        authentication_pause_s=settings.authentication_pause_s,
    )


def return_path_of(settings: EmailSettings) -> ReturnPath:
    """Return the return path that `settings` describe."""
    return ReturnPath.of(settings.bounce_domain, (settings.secrets_key, settings.previous_secrets_key))
