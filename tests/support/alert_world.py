"""Alerts on a real PostgreSQL, with a feed that ticks when a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from chassis.broker import envelope
from chassis.deadlines import Deadline
from chassis.postgres import Postgres
from contracts.alerts import CONDITION_KINDS, Alert, AlertFired, CreateAlert, GetAlert, ListFirings
from contracts.stocks import Quote, StreamPosition
from stock_data.alerts.answers import AlertAnswers
from stock_data.alerts.stored import StoredAlerts
from stock_data.alerts.watcher import AlertWatcher
from stock_data.history.shipped import ShippedHistory
from stock_data.instruments import InstrumentIndex
from stock_data.replay.board import Board
from stock_data.replay.term import Term
from support.alert_ticks import tick
from support.background import in_background
from support.waiting import until
from support.waiting_messages import waiting_messages

SOON = Deadline(float("inf"))
_SEED = """
INSERT INTO instruments (symbol, name, exchange, source) VALUES ('A', 'A', 'X', 't'), ('B', 'B', 'X', 't');
INSERT INTO bars VALUES ('A', '2012-05-18', 1, 1, 1, 1, 1), ('B', '2012-05-18', 1, 1, 1, 1, 1);
INSERT INTO replay (term, start_day) VALUES (1, '2012-05-21');
"""


class AlertWorld:
    """A database with the symbols A and B, a feed in term 1, and the alerts of its owners."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.board = Board(stale_after_s=10)
        self.index = InstrumentIndex()
        self.changed: Callable[[], None] = lambda: None
        self.answers = self.answering()
        self.offset = 0

    def answering(self, *, has_feed: bool = True, most: int = 5) -> AlertAnswers:
        return AlertAnswers(
            self.postgres,
            index=self.index,
            board=self.board,
            has_feed=has_feed,
            most_of_owner=most,
            changed=lambda: self.changed(),
        )

    def show(self, price: int, **changes: Any) -> Quote:
        """Return a tick that the board has seen."""
        self.offset += 1
        quote = tick(price, stream=StreamPosition(epoch="1", offset=self.offset), **changes)
        self.board.put([quote])
        return quote

    async def create(self, owner_id: str = "7", **wanted: Any) -> Alert:
        condition = {key: wanted.pop(key) for key in list(wanted) if key in CONDITION_KINDS}
        fields = {"alert_id": envelope.new_id(), "owner_id": owner_id, "made_by": "key", "symbol": "A"}
        request = CreateAlert.model_validate({**fields, "condition": condition, **wanted})
        return await self.answers.create(request, SOON)

    async def get(self, alert: Alert, owner_id: str = "7") -> Alert:
        return await self.answers.get(GetAlert(alert_id=alert.id, owner_id=owner_id), SOON)

    async def rows(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with self.postgres.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def firings(self, owner_id: str = "7") -> list[tuple[int, int]]:
        """Return the offset and the price of each firing."""
        found = await self.answers.firings(ListFirings(owner_id=owner_id), SOON)
        return [(firing.offset, int(firing.price)) for firing in found.data]

    async def events(self) -> list[AlertFired]:
        """Return the messages that wait in the outbox."""
        async with self.postgres.connection() as connection:
            messages = await waiting_messages(connection)
        assert {message.message_type for message in messages} <= {AlertFired.message_type}
        return [AlertFired.model_validate_json(message.body) for message in messages]


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[AlertWorld]:
    """Yield a world in a database that stock-data has migrated."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SEED)
    await connection.close()
    postgres = Postgres(dsn, size=4)
    await postgres.open()
    made = AlertWorld(postgres)
    made.index.fill(await ShippedHistory(postgres).listings())
    yield made
    await postgres.close()


@asynccontextmanager
async def watching(
    world: AlertWorld, term: int = 1, alerts: StoredAlerts | None = None
) -> AsyncIterator[AlertWatcher]:
    """Yield a watcher that knows all alerts that there are."""
    watcher = AlertWatcher(alerts or StoredAlerts(world.postgres), wake_relay=lambda: None)
    watcher.begin(Term(term, None))
    async with in_background(watcher.run()):
        [row] = await world.rows(
            "SELECT count(*) FROM alerts WHERE deleted_at IS NULL AND NOT (once AND fired_count > 0)"
            " AND (expires_at IS NULL OR expires_at > now())"
        )
        await until(lambda: watcher.armed >= row["count"])
        yield watcher


async def settled(*watchers: AlertWatcher) -> None:
    await until(lambda: not any(watcher.unwritten for watcher in watchers))
