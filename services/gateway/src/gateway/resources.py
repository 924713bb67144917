"""Everything of the gateway that is made once, opened and closed."""

from __future__ import annotations

from uuid import uuid4

from chassis import logging, queries
from chassis.cache import Cache
from chassis.foundation import Foundation
from contracts.topology import GATEWAY
from gateway import consumers
from gateway.acceptance.acceptor import Acceptor
from gateway.acceptance.batch_routes import BatchDesk
from gateway.acceptance.catalogue import Catalogue
from gateway.acceptance.email_routes import EmailDesk
from gateway.acceptance.repository import AcceptanceRepository
from gateway.acceptance.upload_desk import UploadDesk
from gateway.administration.parked import ParkedDesk
from gateway.administration.prometheus import Prometheus
from gateway.administration.status import StatusDesk
from gateway.identity import keys
from gateway.identity.keyring import KeyRing
from gateway.identity.repository import IdentityRepository
from gateway.identity.routes import UserDesk
from gateway.realtime.channels import Channels
from gateway.realtime.hub import Hub
from gateway.realtime.repository import RoomRepository
from gateway.realtime.rooms import Chat
from gateway.settings import GatewaySettings
from gateway.stocks.book import QuoteBook
from gateway.stocks.desk import StockDesk

log = logging.get(__name__)


class Resources:
    """The parts of the gateway, wired; `open` starts them, `close` ends them in order."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.pepper = settings.key_pepper.get_secret_value()
        self.foundation = Foundation(settings, service=GATEWAY, package="gateway")
        postgres, messaging = self.foundation.postgres, self.foundation.messaging
        statements = queries.load("gateway")
        self.rpc = messaging.rpc
        self.identity = IdentityRepository(postgres, statements)
        self.keyring = KeyRing(self.identity, self.pepper)
        self.users = UserDesk(self.identity, Cache(settings.memcached_address, name="gateway-users"))
        acceptances = AcceptanceRepository(postgres, statements)
        self.acceptor = Acceptor(acceptances, self.foundation.relay, retention_days=settings.retention_days)
        self.emails = EmailDesk(self.acceptor, self.rpc)
        uploads = UploadDesk(self.acceptor, acceptances, messaging.publisher)
        self.batches = BatchDesk(self.acceptor, Catalogue(acceptances), uploads, self.rpc)
        self.parked = ParkedDesk(self.foundation.parked, self.rpc)
        self.status = StatusDesk(_prometheus(settings))
        self.book = QuoteBook(fresh_s=settings.quote_fresh_s)
        self.stocks = StockDesk(self.book, self.rpc)
        self.hub = Hub()
        self.chat = Chat(RoomRepository(postgres, statements), self.hub, messaging.publisher)
        self.channels = Channels(
            hub=self.hub,
            book=self.book,
            chat=self.chat,
            find_batch=lambda principal, id_, deadline: self.batches.get(principal, id_, "batch", deadline),
            find_quote=self.stocks.quote,
            epoch=uuid4().hex,
        )
        self.foundation.consume(consumers.EVENTS, consumers.events(acceptances), prefetch=400)
        messaging.listen(consumers.LiveFeed(book=self.book, hub=self.hub, chat=self.chat).attach)
        self.foundation.on_database(self._make_bootstrap_key_known)

    async def open(self) -> None:
        """Start in the background; readiness tells when all is there."""
        await self.foundation.open()
        tasks = self.foundation.tasks
        tasks.keep("last use of keys", self.keyring.note_use)
        tasks.keep("chat catch-up", self.chat.catch_up)
        tasks.keep("removal of old acceptances", self.acceptor.clean)

    async def close(self) -> None:
        """Stop in order."""
        await self.foundation.close()
        await self.status.close()

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
