"""Everything of the gateway that is made once, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from chassis import logging, queries
from chassis.cache import Cache
from chassis.runtime import ServiceRuntime
from contracts.topology import GATEWAY
from gateway import consumers
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.idempotency import Once
from gateway.acceptance.repository import AcceptanceRepository
from gateway.administration.parked import ParkedService
from gateway.administration.prometheus import Prometheus
from gateway.administration.status import StatusService
from gateway.batches.operations import OperationCatalogue
from gateway.batches.service import BatchService
from gateway.batches.upload_service import UploadService
from gateway.chat.repository import RoomRepository
from gateway.chat.service import ChatService
from gateway.emails.service import EmailService
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.repository import IdentityRepository
from gateway.identity.routes import KeyService, UserService
from gateway.realtime.channels import Channels
from gateway.realtime.command_table import COMMANDS
from gateway.realtime.connection_limit import Bounds, ConnectionLimit
from gateway.realtime.connections import Connections
from gateway.realtime.hub import Hub
from gateway.realtime.operations import no_operations
from gateway.realtime.presence import Presence
from gateway.realtime.quote_feed import QuoteFeed
from gateway.realtime.session import Realtime
from gateway.realtime.tokens import TokenService
from gateway.settings import GatewaySettings
from gateway.stocks.book import QuoteBook
from gateway.stocks.service import StockService

log = logging.get(__name__)


class Resources:
    """The parts of the gateway, wired; `open` starts and ends them in order."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.pepper = settings.key_pepper.get_secret_value()
        self.runtime = ServiceRuntime(settings, service=GATEWAY, package="gateway")
        postgres, messaging = self.runtime.postgres, self.runtime.messaging
        statements = queries.load("gateway")
        self.rpc = messaging.rpc
        self.once = Once(postgres, statements)
        self.identity = IdentityRepository(postgres, statements)
        self.keyring = KeyRing(self.identity, self.pepper)
        self.users = UserService(self.identity, Cache(settings.memcached_address, name="gateway-users"))
        self.keys = KeyService(self.identity, self.keyring, self.pepper)
        acceptances = AcceptanceRepository(postgres, statements)
        self.acceptor = Acceptor(acceptances, self.runtime.relay, retention_days=settings.retention_days)
        self.emails = EmailService(self.acceptor, self.rpc)
        uploads = UploadService(self.acceptor, acceptances, messaging.publisher)
        self.batches = BatchService(self.acceptor, OperationCatalogue(acceptances), uploads, self.rpc)
        self.parked = ParkedService(self.runtime.parked, self.rpc)
        self.status = StatusService(_prometheus(settings))
        self.book = QuoteBook(fresh_s=settings.quote_fresh_s)
        self.stocks = StockService(self.book, self.rpc)
        self.hub = Hub()
        self.feed = QuoteFeed(self.book, self.hub, silent_after_s=2 * settings.quote_fresh_s)
        self.chat = ChatService(RoomRepository(postgres, statements), self.hub, messaging.publisher)
        self.presence = Presence(messaging.publisher)
        self.channels = Channels(
            hub=self.hub,
            feed=self.feed,
            chat=self.chat,
            find={
                "batch": lambda principal, id_, deadline: self.batches.find(
                    principal, id_, "batch", deadline
                ),
                "task": lambda principal, id_, deadline: self.batches.find(principal, id_, "task", deadline),
                "email": self.emails.find,
            },
            find_quote=self.stocks.ask,
        )
        self.tokens = TokenService(
            self.pepper, authenticate=self.keyring.authenticate, find=self.keyring.find_principal
        )
        self.connections = Connections(self.keyring.find_principal)
        self.connection_limit = ConnectionLimit(
            Bounds.of(settings.most_sockets, settings.most_unauthenticated_sockets)
        )
        self.realtime = Realtime(
            commands=COMMANDS,
            channels=self.channels,
            presence=self.presence,
            authenticate=self.tokens.authenticate,
            call_operation=no_operations,
            buffer_bytes=settings.socket_buffer_bytes,
        )
        self.runtime.consume(consumers.EVENTS, consumers.events(acceptances), prefetch=400)
        live_feed = consumers.LiveFeed(book=self.book, hub=self.hub, chat=self.chat, presence=self.presence)
        messaging.listen(live_feed.attach)
        self.runtime.on_database(self._make_bootstrap_key_known)

    async def open(self) -> AsyncGenerator[None, None]:
        """Start everything in the background; close it in reverse order at the end."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.status.close)
            await stack.enter_async_context(self.runtime)
            tasks = self.runtime.tasks
            tasks.supervise("last use of keys", self.keyring.note_use)
            tasks.supervise("chat catch-up", self.chat.catch_up)
            tasks.supervise("freshness of quotes", self.feed.watch)
            tasks.supervise("presence", self.presence.announce)
            tasks.supervise("clock of the connections", self.connections.keep_time)
            tasks.supervise("keys of the connections", self.connections.watch_keys)
            tasks.supervise("removal of old acceptances", self.acceptor.clean)
            yield

    async def _make_bootstrap_key_known(self) -> None:
        if self.settings.bootstrap_key is None:
            return
        key = keys.parse(self.settings.bootstrap_key.get_secret_value())
        assert key is not None  # the settings have seen to it
        if not await self.identity.ensure_admin(key.id, keys.digest(self.pepper, key)):
            log.error("the bootstrap key does not work: GATEWAY_KEY_PEPPER or the key's secret has changed")


def _prometheus(settings: GatewaySettings) -> Prometheus | None:
    url = settings.prometheus_url
    return None if url is None else Prometheus(url.get_secret_value())
