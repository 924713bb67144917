"""Quotes from Alpaca's snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Self

from contracts.stocks import Quote
from stock_data import quotes, sessions
from stock_data.history.bars import Split
from stock_data.providers.alpaca_payloads import AlpacaBar, AlpacaSnapshot

SOURCE = "alpaca"

_NO_SPLITS = f"{SOURCE}: the splits of the last days are unknown, so the change is missing"


@dataclass(frozen=True, slots=True)
class LastTrade:
    """A symbol's last trade, its day of trading, the best bid and ask, and the newest daily bars by day."""

    day: date
    at: datetime
    price: Decimal
    bid: Decimal | None
    ask: Decimal | None
    bars: Mapping[date, AlpacaBar]

    @classmethod
    def of(cls, snapshot: AlpacaSnapshot) -> Self | None:
        """Return the last trade of `snapshot`; without one, its newest close; without that, None."""
        newest_last = [bar for bar in (snapshot.previous_bar, snapshot.daily_bar) if bar is not None]
        bars = {sessions.day_of(bar.t): bar for bar in newest_last}
        trade, book = snapshot.latest_trade, snapshot.latest_quote
        bid, ask = (book.bp or None, book.ap or None) if book else (None, None)
        if trade is not None:
            return cls(sessions.trading_day(trade.t), trade.t, trade.p, bid, ask, bars)
        if not bars:
            return None
        day = max(bars)
        return cls(day, sessions.closing(day), bars[day].c, bid, ask, bars)

    def quote(self, symbol: str, splits: tuple[Split, ...] | None, *, delay_s: float, now: datetime) -> Quote:
        """Return the quote at `now`. When the splits are not known, neither is the change."""
        before = None
        if splits is not None:
            closes = {day: bar.c for day, bar in self.bars.items()}
            before = quotes.previous_close(self.day, closes, splits)
        difference, percent = quotes.change(self.price, before)
        bar = self.bars.get(self.day)
        return Quote(
            symbol=symbol,
            price=self.price,
            bid=self.bid,
            ask=self.ask,
            open=bar.o if bar else None,
            high=bar.h if bar else None,
            low=bar.l if bar else None,
            previous_close=before,
            change=difference,
            change_percent=percent,
            volume=bar.v if bar else None,
            as_of=self.at,
            delayed_by_s=delay_s,
            source=SOURCE,
            stale=quotes.is_stale(self.at, now),
            session=sessions.session_at(now),
            warnings=[] if splits is not None else [_NO_SPLITS],
        )
