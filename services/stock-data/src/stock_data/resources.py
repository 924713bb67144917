"""The parts of stock-data: made once, opened and closed in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from functools import partial

from pydantic import SecretStr

from chassis import metrics
from chassis.cache import Cache
from chassis.runtime import ServiceRuntime
from chassis.supervision import keep_going
from contracts.topology import STOCK_DATA
from stock_data import consumers
from stock_data.alerts.answers import AlertAnswers
from stock_data.alerts.stored import StoredAlerts
from stock_data.alerts.watcher import AlertWatcher
from stock_data.history import dataset
from stock_data.history.kept_bars import KeptBars
from stock_data.history.shipped import ShippedHistory
from stock_data.instruments import InstrumentIndex
from stock_data.market import Market
from stock_data.providers.alpaca import AlpacaProvider
from stock_data.providers.cached import CachedQuotes
from stock_data.providers.embedded import EmbeddedProvider
from stock_data.providers.failover import Failover
from stock_data.providers.guarded import Guarded
from stock_data.providers.kept import KeptHistory
from stock_data.providers.provider import Provider, Upstream
from stock_data.providers.shared import SharedQuotes
from stock_data.replay import repository as replays
from stock_data.replay.board import Board
from stock_data.replay.feed import Feed
from stock_data.replay.following import Follower
from stock_data.replay.leadership import Leadership
from stock_data.replay.live_bars import LiveBars
from stock_data.replay.term import Term
from stock_data.replay.ticks import ReplayBar, ReplaySpeed
from stock_data.settings import ProviderName, StockDataSettings

_REFRESH_EVERY_S = 60
_STALE_AFTER_S = 10.0
_BROKER_PATIENCE_S = 5.0


class Resources:
    """The parts of one running service."""

    def __init__(self, settings: StockDataSettings) -> None:
        self._settings = settings
        self.runtime = ServiceRuntime(settings, service=STOCK_DATA, package="stock_data")
        self.history = ShippedHistory(self.runtime.postgres)
        self.index = InstrumentIndex()
        self.board = Board(stale_after_s=max(_STALE_AFTER_S, 3 / settings.replay_ticks_per_s))
        self._filled = asyncio.Event()
        self._upstreams = [
            build(settings) for name, build in _UPSTREAMS.items() if name in settings.providers
        ]
        embedded = EmbeddedProvider(index=self.index, board=self.board, history=self.history.bars)
        available: dict[str, Provider] = {embedded.name: embedded}
        # All replicas of this service have this secret, and nothing else has it.
        self._cache = Cache(
            settings.memcached_address, name="quotes", secret=settings.postgres_dsn.get_secret_value()
        )
        kept_bars = KeptBars(self.runtime.postgres, most=settings.kept_bars)
        for upstream in self._upstreams:
            shared = SharedQuotes(self._cache, upstream.name, settings.quote_ttl_s)
            cached = CachedQuotes(
                Guarded(upstream),
                ttl_s=settings.quote_ttl_s,
                timeout_s=upstream.timeout_s,
                shared=shared if settings.quote_ttl_s else None,
                budget=upstream.budget,
            )
            available[upstream.name] = KeptHistory(cached, kept_bars)
        providers = [available[name] for name in settings.providers]
        upstreams = [provider for provider in providers if isinstance(provider, KeptHistory)]
        self.market = Market(Failover(providers), self.index, upstreams=upstreams)
        self.stored_alerts = StoredAlerts(self.runtime.postgres)
        self.alerts = AlertWatcher(self.stored_alerts, wake_relay=self.runtime.relay.wake)
        self.live_bars = LiveBars(self.runtime.messaging.publisher.send)
        self.feed = Feed(
            ReplaySpeed(settings.replay_speed, settings.replay_ticks_per_s),
            start_day=settings.replay_start_day,
            read_days=self._read_days,
            board=self.board,
            send=self.runtime.messaging.publisher.send,
            on_ticks=[self.live_bars.take, self.alerts.take],
        )
        self._answer(settings)
        self.runtime.on_database(self._fill)
        self.runtime.repeat("instrument index", self._refresh, every_s=_REFRESH_EVERY_S)
        self.runtime.repeat("removal of old alerts", self.stored_alerts.clean, every_s=_REFRESH_EVERY_S)
        if settings.replays:
            follower = Follower(self.board, feed=self.feed)
            self.runtime.messaging.listen(follower.attach)

    def _answer(self, settings: StockDataSettings) -> None:
        alert_answers = AlertAnswers(
            self.runtime.postgres,
            index=self.index,
            board=self.board,
            has_feed=settings.replays,
            most_of_owner=settings.alerts_per_owner,
            changed=self.alerts.wake,
        )
        self.runtime.answer(consumers.answers(self.market, alert_answers))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start everything in the background; close it in reverse order when the block ends."""
        metrics.FEED_EXPECTED.set(self._settings.replays)
        async with AsyncExitStack() as stack:
            stack.callback(self._cache.close)
            for upstream in self._upstreams:
                # Closed last: until the runtime has ended the answers, they may call the upstream.
                stack.push_async_callback(upstream.close)
            await stack.enter_async_context(self.runtime)
            if self._settings.replays:
                self.runtime.tasks.supervise("replay", self._replay)
            yield

    async def _fill(self) -> None:
        """Store the shipped history and read its newest bars, before the first request."""
        data = await asyncio.to_thread(dataset.read)
        await self.history.import_dataset(data)
        self.index.fill(await self.history.listings())
        if self._settings.replays:
            async with self.runtime.postgres.connection() as connection:
                last = await replays.find_last_term(connection, self._settings.replay_start_day)
            if last is not None:
                await self.feed.restore(last)
        self._filled.set()

    async def _replay(self) -> None:
        await self._filled.wait()
        # The first day must not lose its opening when the broker starts a moment after the database.
        await self.runtime.messaging.publisher.wait_connected(_BROKER_PATIENCE_S)
        leadership = Leadership(
            partial(self._settings.current_secret, "postgres_dsn"),
            board=self.board,
            start_day=self._settings.replay_start_day,
        )
        await leadership.run_while_leader(self._run_feed)

    async def _run_feed(self, term: Term) -> None:
        """Run the feed in `term`, and everything that depends on its ticks, for as long as the term lasts."""
        self.live_bars.begin(term)
        self.alerts.begin(term)
        async with asyncio.TaskGroup() as group:
            # An error in one of them must not end the feed.
            beside = [
                group.create_task(keep_going("live bars", self.live_bars.run)),
                group.create_task(keep_going("price alerts", self.alerts.run)),
            ]
            await self.feed.run(term)
            for task in beside:
                task.cancel()

    async def _refresh(self) -> None:
        self.index.fill(await self.history.listings())

    async def _read_days(self, day: date, count: int) -> list[list[ReplayBar]]:
        async with self.runtime.postgres.connection() as connection:
            return await replays.find_days(connection, day, count)


def _alpaca(settings: StockDataSettings) -> AlpacaProvider:
    return AlpacaProvider(
        base_url=settings.alpaca_url,
        key_id=_secret(settings.alpaca_key_id),
        secret=_secret(settings.alpaca_secret_key),
        feed=settings.alpaca_feed,
        timeout_s=settings.alpaca_timeout_s,
    )


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


# A new upstream needs one line here.
_UPSTREAMS: Mapping[ProviderName, Callable[[StockDataSettings], Upstream]] = {"alpaca": _alpaca}
