"""The feed's last quote of each symbol, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from contracts.stocks import Quote, StreamPosition, freshness, is_later


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """The position of the replay: the time in history that was shown last, and when it was shown."""

    replayed: datetime
    shown_at: datetime


class Board:
    """The latest quote by symbol, in the order of the feed; stale when older than `stale_after_s` seconds.

    `epoch` is the epoch of the latest leader whose quotes were stored, `position` that of its replay.
    """

    def __init__(self, *, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s
        self._quotes: dict[str, Quote] = {}
        self.epoch: str | None = None
        self.position: ReplayPosition | None = None

    def put(self, quotes: Iterable[Quote]) -> None:
        """Store quotes that follow the stored ones; late quotes of an old leader are ignored."""
        for quote in quotes:
            at = quote.stream
            if at is None or not self._follows(quote.symbol, at):
                continue
            self._quotes[quote.symbol], self.epoch = quote, at.epoch
            if quote.replayed is not None:
                self.position = ReplayPosition(quote.replayed, quote.as_of)

    def get(self, symbol: str, now: datetime) -> Quote | None:
        """Return the last quote of `symbol` with its freshness at `now`."""
        quote = self._quotes.get(symbol)
        if quote is None:
            return None
        fresh = freshness(quote.as_of, now=now, stale_after_s=self._stale_after_s)
        return quote.model_copy(update={"stale": fresh.stale, "delayed_by_s": fresh.delayed_by_s})

    def _follows(self, symbol: str, at: StreamPosition) -> bool:
        """Return whether `at` follows all earlier leaders and the last quote of `symbol`."""
        if self.epoch is not None and at.epoch != self.epoch:
            return is_later(at.epoch, at.offset, than_epoch=self.epoch, than_offset=0)
        known = self._quotes.get(symbol)
        if known is None or known.stream is None:
            return True
        return is_later(at.epoch, at.offset, than_epoch=known.stream.epoch, than_offset=known.stream.offset)
