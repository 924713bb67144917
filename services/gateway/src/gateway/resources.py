"""The shared parts of the gateway: created once, opened and closed in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from chassis import logging, metrics
from chassis.egress.client import GuardedClient
from chassis.egress.destinations import InternalTargets
from chassis.loop_turns import LoopTurns
from chassis.runtime import ServiceRuntime
from contracts.batches import INTAKE
from contracts.domains import AllowedSenders
from contracts.topology import GATEWAY
from gateway import consumers
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.idempotency import Once
from gateway.administration.backups import BackupWatch
from gateway.administration.pause_service import PauseService
from gateway.administration.prometheus import Prometheus
from gateway.administration.status_service import StatusService
from gateway.alerts.feed import AlertFeed
from gateway.audit.service import AuditTrail
from gateway.batches.backlog import Backlog
from gateway.batches.open_uploads import OpenUploads
from gateway.batches.operations import OperationCatalogue
from gateway.batches.service import BatchService
from gateway.batches.upload_service import BatchUploadService
from gateway.batches.upload_turns import UploadTurns
from gateway.chat.service import ChatService
from gateway.chat.upkeep import ChatUpkeep
from gateway.domains.senders import VerifiedSenders
from gateway.emails.bulk import BulkChanges
from gateway.emails.listing import EmailListing
from gateway.emails.parcels import MOST_AT_ONCE as MOST_PARCELS
from gateway.emails.parcels import Parcels
from gateway.emails.service import EmailService
from gateway.emails.waiting_mails import WaitingMails
from gateway.emails.waiting_parcels import ParcelLimits, WaitingParcels
from gateway.http.shared_bytes import SharedBytes
from gateway.identity import keys
from gateway.identity.access_tokens import AccessTokens
from gateway.identity.bootstrap import BootstrapKey
from gateway.identity.issuer_keys import IssuerKeys
from gateway.identity.key_service import KeyService
from gateway.identity.keyring import KeyRing
from gateway.identity.login_service import LoginService
from gateway.identity.scope_rules import read_rules
from gateway.identity.subjects import Subjects
from gateway.identity.upkeep import KeyUpkeep
from gateway.identity.user_service import UserService
from gateway.limits import exchange as limit_exchange
from gateway.limits.exchange import LeaseExchange
from gateway.limits.policies import read_policies
from gateway.limits.service import LimitService
from gateway.publishing.hub import Hub
from gateway.realtime.bar_feed import BarFeed
from gateway.realtime.channels import Channels
from gateway.realtime.command_rate import OwnerRates
from gateway.realtime.command_table import COMMANDS
from gateway.realtime.connection_limit import ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.operations import ReadingOperations
from gateway.realtime.presence import Presence
from gateway.realtime.quote_feed import QuoteFeed
from gateway.realtime.session import Realtime
from gateway.realtime.slow_clients import SlowClients
from gateway.realtime.tokens import TokenService
from gateway.schedules.runs import ScheduledRuns
from gateway.settings import GatewaySettings
from gateway.stocks.book import QuoteBook
from gateway.stocks.service import StockService
from gateway.uploads.service import MOST_AT_ONCE
from gateway.uploads.service import FileUploadService as FileUploads
from gateway.uploads.transfer import Transfer
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.delivery_service import DeliveryService
from gateway.webhooks.promises import Promises
from gateway.webhooks.secret_safe import SecretSafe
from gateway.webhooks.service import WebhookService
from gateway.webhooks.upkeep import WebhookUpkeep

log = logging.get(__name__)

REMOVE_EVERY_S = 60
_REMOVE_AUDIT_EVERY_S = 600
_REMOVE_KEYS_EVERY_S = 600
_REMOVE_MESSAGES_EVERY_S = 3600
_LOOK_FOR_BACKUP_EVERY_S = 60
_RESEAL_EVERY_S = 600
_LOOK_AT_KEY_EVERY_S = 30
_MEASURE_PARCELS_EVERY_S = 5
# Messages with events that have arrived and are not handled yet: bundles, and single ones up to 130 KB.
EVENTS_PREFETCH = 200
# Each event may be stored for each webhook of its owner. Meanwhile these are locked, and the events of others
# wait.
EVENTS_TOGETHER_BYTES = 256 * 1024
# Of a stop, for what waits for a turn at the event loop.
_LAST_TURNS_S = 1.0


class Resources:
    """The parts that run, or that several features share, wired; `open` starts and ends them in order."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.runtime = ServiceRuntime(settings, service=GATEWAY, package="gateway")
        postgres = self.runtime.postgres
        self.rpc = self.runtime.messaging.rpc
        self.once = Once(postgres)
        self.audit = AuditTrail(postgres, retention_days=settings.audit_retention_days)
        self.chat_upkeep = ChatUpkeep(postgres, retention_days=settings.chat_retention_days)
        self._wire_identity()
        policies = read_policies(settings.rate_limits)
        self.limit_exchange = LeaseExchange(limit_exchange.asking(postgres, policies))
        self.limits = LimitService(
            postgres,
            policies,
            self.limit_exchange,
            owner_factor=settings.rate_limit_owner_factor,
        )
        self.acceptor = Acceptor(postgres, self.runtime.relay, retention_days=settings.retention_days)
        self.catalogue = OperationCatalogue(postgres.connection)
        self.loop_turns = turns = LoopTurns()
        metrics.LOOP_TURNS_WAITING.set_function(lambda: turns.waiting)
        metrics.LOOP_TURNS_OLDEST.set_function(lambda: turns.oldest_s)
        self.hub = Hub(most_subscriptions=settings.most_subscriptions, turns=self.loop_turns)
        self.shared_bytes = shared = SharedBytes()
        metrics.HTTP_SHARED_BYTES.set_function(lambda: shared.taken)
        self._wire_mail()
        self._wire_batches()
        self.pauses = PauseService(self.rpc, self.catalogue, self.users, self.audit)
        url = settings.prometheus_url
        prometheus = None if url is None else Prometheus(url.get_secret_value())
        self.status = StatusService(prometheus, pauses=self.pauses.all)
        self.backups = BackupWatch(postgres)
        self.book = QuoteBook(fresh_s=settings.quote_fresh_s)
        self.stocks = StockService(self.book, self.rpc, shared=shared)
        self._wire_channels()
        self._wire_realtime()
        self._wire_webhooks()
        events = consumers.events(
            self.senders,
            ScheduledRuns(self.catalogue),
            Promises(self.deliverer.wake),
            committed=self.runtime.relay.wake,
        )
        self.runtime.consume(
            consumers.EVENTS, events, prefetch=EVENTS_PREFETCH, group_bytes=EVENTS_TOGETHER_BYTES
        )
        self._repeat_upkeep()

    def _repeat_upkeep(self) -> None:
        repeat = self.runtime.repeat
        repeat("removal of old acceptances", self.acceptor.remove_old, every_s=REMOVE_EVERY_S)
        repeat("removal of old uploads", self.uploads.remove_expired, every_s=REMOVE_EVERY_S)
        repeat("removal of old windows of limits", self.limits.remove_old, every_s=REMOVE_EVERY_S)
        repeat("removal of old audit entries", self.audit.remove_old, every_s=_REMOVE_AUDIT_EVERY_S)
        repeat("removal of old API keys", self.key_upkeep.remove_old, every_s=_REMOVE_KEYS_EVERY_S)
        repeat("removal of old messages", self.chat_upkeep.remove_old, every_s=_REMOVE_MESSAGES_EVERY_S)
        repeat("size of waiting parcels", self.waiting_parcels.measure, every_s=_MEASURE_PARCELS_EVERY_S)
        repeat("age of the last backup", self.backups.look, every_s=_LOOK_FOR_BACKUP_EVERY_S)
        repeat("removal of old deliveries", self.webhook_upkeep.remove_old, every_s=REMOVE_EVERY_S)
        repeat("encryption of webhook secrets", self.webhook_upkeep.reseal, every_s=_RESEAL_EVERY_S)
        if self.bootstrap is not None:
            self.runtime.on_database(self.bootstrap.make_known)
            repeat("watch over the bootstrap key", self.bootstrap.look, every_s=_LOOK_AT_KEY_EVERY_S)

    def _wire_batches(self) -> None:
        publisher = self.runtime.messaging.publisher
        self.upload_turns = UploadTurns(self.shared_bytes)
        backlog = Backlog(partial(self.runtime.messaging.measure, INTAKE))
        self.batches = BatchService(
            self.acceptor,
            self.catalogue,
            self.rpc,
            uploads=BatchUploadService(self.acceptor, publisher, self.upload_turns, backlog),
            open_uploads=OpenUploads(
                self.runtime.postgres,
                self.acceptor,
                publisher,
                catalogue=self.catalogue,
                turns=self.upload_turns,
                backlog=backlog,
            ),
            hub=self.hub,
        )

    def _wire_mail(self) -> None:
        settings, postgres = self.settings, self.runtime.postgres
        self.transfer = Transfer(settings.email_url, most=MOST_AT_ONCE)
        self.uploads = FileUploads(postgres, self.acceptor, self.rpc, self.transfer, shared=self.shared_bytes)
        self.senders = VerifiedSenders(postgres, AllowedSenders.read(settings.allowed_sender_domains))
        self.parcel_transfer = Transfer(settings.email_url, most=MOST_PARCELS)
        parcels = Parcels(self.rpc, self.parcel_transfer)
        waiting_mails = WaitingMails(postgres, self.runtime.messaging.publisher)
        self.waiting_parcels = WaitingParcels(
            postgres,
            parcels,
            self.runtime.relay,
            waiting_mails,
            ParcelLimits(settings.parcels_owner_bytes, settings.parcels_total_bytes),
        )
        self.email_bulk = BulkChanges(self.rpc, waiting_mails)
        self.email_listing = EmailListing(postgres, self.rpc)
        self.emails = EmailService(
            self.acceptor,
            self.rpc,
            self.uploads,
            parcels,
            self.waiting_parcels,
            waiting_mails,
            self.email_listing,
            self.senders,
            message_id_domain=settings.message_id_domain,
        )

    def _wire_channels(self) -> None:
        publisher = self.runtime.messaging.publisher
        self.feed = QuoteFeed(self.book, self.hub, silent_after_s=2 * self.settings.quote_fresh_s)
        self.bar_feed = BarFeed(self.hub, silent_after_s=2 * self.settings.quote_fresh_s)
        self.alert_feed = AlertFeed(self.hub, self.rpc)
        self.chat = ChatService(self.runtime.postgres, self.hub, publisher)
        self.presence = Presence(publisher)
        self.channels = Channels(
            hub=self.hub,
            feed=self.feed,
            bars=self.bar_feed,
            chat=self.chat,
            alerts=self.alert_feed,
            find={
                "batch": lambda caller, id_, deadline: self.batches.find(caller, id_, "batch", deadline),
                "task": lambda caller, id_, deadline: self.batches.find(caller, id_, "task", deadline),
                "email": self.emails.find,
            },
            find_quote=self.stocks.ask,
            charge=self.limits.charge,
        )
        live_feed = consumers.LiveFeed(
            book=self.book,
            bars=self.bar_feed,
            alerts=self.alert_feed,
            hub=self.hub,
            chat=self.chat,
            presence=self.presence,
        )
        self.runtime.messaging.listen(live_feed.attach)

    def _wire_realtime(self) -> None:
        self.tokens = TokenService(
            self.settings.key_pepper.get_secret_value(),
            previous_pepper=self.settings.rotated_pepper,
            authenticate=self.keyring.authenticate,
            find=self.keyring.find_principal,
        )
        self.connections = Connections(self.keyring.renew)
        most = self.settings.most_sockets
        self.connection_limit = ConnectionLimit(total=most, per_owner=max(1, most // 2))
        self.slow_clients = SlowClients()
        self.operations = ReadingOperations(
            timeout_s=self.settings.request_timeout_s, charge=self.limits.charge
        )
        self.realtime = Realtime(
            commands=COMMANDS,
            channels=self.channels,
            presence=self.presence,
            authenticate=self.tokens.authenticate,
            owner_rates=OwnerRates(self.settings.owner_commands_per_s),
            turns=self.loop_turns,
            call_operation=self.operations.call,
            buffer_bytes=self.settings.socket_buffer_bytes,
        )

    def _wire_webhooks(self) -> None:
        settings, postgres = self.settings, self.runtime.postgres
        safe = SecretSafe(settings.key_pepper.get_secret_value(), settings.rotated_pepper)
        internal = InternalTargets.parse(settings.webhook_internal_targets)
        self.deliverer = Deliverer(postgres, safe, GuardedClient(internal), turns=self.loop_turns)
        self.runtime.on_database(self.deliverer.begin)
        self.webhooks = WebhookService(postgres, safe, internal, self.audit)
        self.webhook_deliveries = DeliveryService(postgres, self.deliverer.wake)
        self.webhook_upkeep = WebhookUpkeep(postgres, safe)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start everything in the background; close it in reverse order when the block ends."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.status.close)
            stack.push_async_callback(self.transfer.close)
            stack.push_async_callback(self.parcel_transfer.close)
            if self.access_tokens is not None:
                stack.push_async_callback(self.access_tokens.keys.close)
            await stack.enter_async_context(self.runtime)
            stack.push_async_callback(self.limits.give_back)
            stack.push_async_callback(self.deliverer.close)
            # While messages can still be sent.
            stack.push_async_callback(self.presence.take_leave)
            # Before: the connections that the stop has closed leave their channels in turns of their owners.
            stack.push_async_callback(partial(self.loop_turns.finish, within_s=_LAST_TURNS_S))
            tasks = self.runtime.tasks
            tasks.supervise("exchange of limits", self.limit_exchange.run)
            tasks.supervise("leases of limits", self.limits.settle)
            tasks.supervise("last use of keys", self.keyring.note_use)
            tasks.supervise("webhooks", self.deliverer.run)
            tasks.supervise("waiting parcels", self.waiting_parcels.run)
            tasks.supervise("chat catch-up", self.chat.catch_up)
            tasks.supervise("freshness of quotes", self.feed.silence.watch)
            tasks.supervise("freshness of bars", self.bar_feed.silence.watch)
            tasks.supervise("alerts catch-up", self.alert_feed.catch_up)
            tasks.supervise("presence", self.presence.announce)
            tasks.supervise("who joins and leaves", self.presence.keep_telling_moves)
            tasks.supervise("clock of the connections", self.connections.keep_time)
            tasks.supervise("keys of the connections", self.connections.watch_keys)
            yield

    def _wire_identity(self) -> None:
        postgres, pepper = self.runtime.postgres, self.settings.key_pepper.get_secret_value()
        previous = self.settings.rotated_pepper
        self.access_tokens = _access_tokens(self.settings)
        subjects = Subjects(audit=self.audit, creates_users=self.settings.oidc_users == "create")
        self.keyring = KeyRing(
            postgres,
            pepper,
            previous_pepper=previous,
            tokens=self.access_tokens,
            subjects=subjects,
        )
        guarded: dict[str, Any] = {"audit": self.audit, "keyring": self.keyring}
        self.users = UserService(postgres, **guarded)
        peppers: dict[str, Any] = {"pepper": pepper, "previous_pepper": previous}
        self.keys = KeyService(postgres, **peppers, **guarded)
        self.key_upkeep = KeyUpkeep(postgres, retention_days=self.settings.key_retention_days)
        self.logins = LoginService(postgres, key_service=self.keys, **peppers)
        configured = self.settings.bootstrap_key
        key = None if configured is None else keys.parse(configured.get_secret_value())
        self.bootstrap: BootstrapKey | None = None
        if key is not None:
            self.bootstrap = BootstrapKey(
                postgres,
                audit=self.audit,
                pepper=pepper,
                previous_pepper=previous,
                key=key,
            )


def _access_tokens(settings: GatewaySettings) -> AccessTokens | None:
    issuer, audience = settings.oidc_issuer, settings.oidc_audience
    if issuer is None or audience is None:
        return None
    return AccessTokens(
        IssuerKeys(issuer, settings.oidc_jwks_url),
        issuer=issuer,
        audience=audience,
        algorithms=settings.oidc_algorithms.split(","),
        rules=read_rules(settings.oidc_scope_rules),
    )
