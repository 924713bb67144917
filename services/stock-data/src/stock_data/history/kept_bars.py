"""Raw bars of upstreams, stored in the database: a range of days without gaps for each symbol."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from chassis import metrics, threads
from chassis.postgres import Postgres
from contracts.stocks import Bar
from stock_data import sessions
from stock_data.errors import HistoryFull
from stock_data.history import kept_bar_repository as repository
from stock_data.history.bars import INLINE_ROWS

_AS_TRADED = Decimal(1)
_ONE_DAY = timedelta(days=1)
# One owner may have the limit divided by this.
_SHARE = 2


@dataclass(frozen=True, slots=True)
class KeptRange:
    """The first and the last stored day of a symbol, with or without trading, and its currency.

    After the newest bar, only days without trading count as stored.
    """

    currency: str
    first: date
    last: date
    bars: int

    def covers(self, start: date, end: date) -> bool:
        """Return whether all days from `start` to `end` are stored."""
        return self.first <= start and end <= self.last


def missing(kept: KeptRange | None, start: date, end: date) -> list[tuple[date, date]]:
    """Return the ranges of days from `start` to `end` that are missing from the stored range."""
    if kept is None:
        return [(start, end)]
    before = [(start, kept.first - _ONE_DAY)] if start < kept.first else []
    return before + ([(kept.last + _ONE_DAY, end)] if end > kept.last else [])


class KeptBars:
    """Stores up to `most` raw bars of upstreams. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, postgres: Postgres, *, most: int) -> None:
        self._postgres = postgres
        self._most = most

    async def range_of(self, source: str, symbol: str) -> KeptRange | None:
        """Return the range of days stored for a symbol of `source`."""
        async with self._postgres.connection() as connection:
            row = await repository.find_range(connection, source, symbol)
        if row is None:
            return None
        # A trading day after the newest bar may have been requested before the upstream had its bar.
        settled = sessions.session_from(row["newest"] + _ONE_DAY) - _ONE_DAY
        return KeptRange(row["currency"], row["first_day"], min(row["last_day"], settled), row["bars"])

    async def bars(
        self, source: str, symbol: str, start: date, end: date, *, limit: int
    ) -> list[tuple[Bar, bool]]:
        """Return the first `limit` bars, each with whether its prices repeat those of the bar before."""
        async with self._postgres.connection() as connection:
            rows = await repository.find_bars(connection, source, symbol, start, end, limit=limit)

        def read() -> list[tuple[Bar, bool]]:
            return [
                (Bar(t=sessions.midnight(day), o=o, h=h, l=low, c=c, v=v, factor=_AS_TRADED), is_repeated)
                for day, o, h, low, c, v, is_repeated in rows
            ]

        return read() if len(rows) <= INLINE_ROWS else await threads.run(read)

    async def count(self, source: str, symbol: str, start: date, end: date) -> int:
        """Return the number of bars stored from `start` to `end`."""
        async with self._postgres.connection() as connection:
            return await repository.count(connection, source, symbol, start, end)

    async def require_room(self, owner_id: str) -> None:
        """Raise `HistoryFull` when the limit on stored bars is reached, for all owners or for this one."""
        async with self._postgres.connection() as connection:
            kept, of_owner = await repository.count_all(connection, owner_id=owner_id)
        if kept >= self._most or of_owner >= self._most // _SHARE:
            raise HistoryFull(f"{kept} bars are already stored, {of_owner} of them for you.")

    async def keep(
        self,
        source: str,
        symbol: str,
        days: tuple[date, date],
        bars: Sequence[Bar],
        *,
        currency: str,
        repeated: Collection[date],
        owner_id: str = "",
    ) -> int:
        """Store `bars`, all those from the first to the last of `days`; return their number.

        Store nothing and return 0 when the days do not adjoin the stored range, or raise `HistoryFull` when
        there would be more bars than the limit: others may have been stored since `require_room`.
        """
        kept = [(bar.t.date(), bar.o, bar.h, bar.l, bar.c, bar.v, bar.t.date() in repeated) for bar in bars]
        async with self._postgres.transaction() as connection:
            is_stored = await repository.store(
                connection, source, symbol, days, kept, currency=currency, owner_id=owner_id
            )
            # Locked last: nobody waits while the bars of another one are copied.
            await repository.lock_count(connection)
            total, of_owner = await repository.count_all(connection, owner_id=owner_id)
            if is_stored and (total > self._most or of_owner > self._most // _SHARE):
                raise HistoryFull(
                    f"With the {len(kept)} bars of {symbol}, {total} bars would be stored, {of_owner} of them"
                    " for you."
                )
        if not is_stored:
            return 0
        metrics.BARS_IMPORTED.labels(source).inc(len(kept))
        return len(kept)
