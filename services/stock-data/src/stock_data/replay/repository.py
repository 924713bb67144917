"""The replay in PostgreSQL: its days, its terms and its position; functions on the caller's connection."""

from __future__ import annotations

from datetime import date
from itertools import groupby

from chassis import queries
from chassis.postgres import Connection, Row
from stock_data import quotes
from stock_data.history import repository as history
from stock_data.replay.board import ReplayPosition
from stock_data.replay.term import Term
from stock_data.replay.ticks import ReplayBar

_SQL = queries.of("stock_data")

# The key of the advisory lock: any number that all replicas share.
LOCK = 7_214_803_552


async def find_days(connection: Connection, day: date, count: int) -> list[list[ReplayBar]]:
    """Return the bars of the first `count` trading days from `day` on, one list a day, by symbol."""
    rows = await connection.fetch(_SQL["select_days"], day, count)
    splits = await history.find_splits(connection)
    bars: list[ReplayBar] = []
    for row in rows:
        closes = {row["previous_day"]: row["previous_close"]} if row["previous_day"] else {}
        before = quotes.previous_close(row["day"], closes, splits.get(row["symbol"], ()))
        bars.append(ReplayBar(row["symbol"], row["currency"], history.bar_of(row), before))
    return [list(group) for _, group in groupby(bars, key=lambda each: each.bar.day)]


async def find_last_term(connection: Connection, start_day: date) -> Term | None:
    """Return the last leader's number and position, if it replayed from `start_day`."""
    row = await connection.fetchrow(_SQL["select_replay"], start_day)
    if row is None:
        return None
    return Term(row["term"], ReplayPosition(row["replayed"], row["shown_at"]))


async def try_lock(connection: Connection) -> bool:
    """Take the lock of the leader for as long as the connection lasts; return False when it is taken."""
    is_locked: bool = await connection.fetchval(_SQL["try_lock_feed"], LOCK)
    return is_locked


async def begin_term(connection: Connection, *, heard: int, start_day: date) -> Row:
    """Begin the next term, later than all stored ones and than `heard`, and return it with the position."""
    row = await connection.fetchrow(_SQL["claim_term"], heard, start_day)
    assert row is not None
    return row


async def save_position(connection: Connection, term: int, position: ReplayPosition | None) -> bool:
    """Save the position of the leader of `term`; return False when a later term has begun."""
    return bool(
        await connection.fetchval(
            _SQL["save_position"],
            term,
            position.replayed if position else None,
            position.shown_at if position else None,
        )
    )
