"""The board: the feed's last quote of each symbol, kept in memory to answer from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from contracts.stocks import Quote


class Board:
    """The newest quote by symbol. One older than `stale_after_s` seconds says so: the feed has stopped."""

    def __init__(self, *, stale_after_s: float) -> None:
        self._stale_after = timedelta(seconds=stale_after_s)
        self._quotes: dict[str, Quote] = {}

    def put(self, quotes: Iterable[Quote]) -> None:
        """Replace the quotes of these symbols."""
        self._quotes.update((quote.symbol, quote) for quote in quotes)

    def get(self, symbol: str, now: datetime) -> Quote | None:
        """The last quote of `symbol`, marked when it is old."""
        quote = self._quotes.get(symbol)
        if quote is None or now - quote.as_of <= self._stale_after:
            return quote
        age_s = round((now - quote.as_of).total_seconds(), 3)
        return quote.model_copy(update={"stale": True, "delayed_by_s": age_s})
