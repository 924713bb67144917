"""The channels `quotes:<symbol>`: pushed quotes with their freshness at the time of sending."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contracts.stocks import freshness
from gateway.publishing.hub import Hub
from gateway.publishing.positions import ChannelPosition
from gateway.publishing.publications import Publication
from gateway.realtime.silence import Silence
from gateway.stocks.book import PushedQuote, QuoteBook

_PREFIX = "quotes:"

# The epoch of quotes that were requested but never pushed.
NO_EPOCH = "unpublished"


class QuoteFeed:
    """Publishes the quotes of the book, and reports when the feed falls silent, resumes or restarts.

    `data.state` of each quote is `live`, `stale` (the feed is silent for `silent_after_s`) or `restarted`
    (the first quote of a new epoch). The quotes of a closed market are not stale.
    """

    def __init__(self, book: QuoteBook, hub: Hub, *, silent_after_s: float) -> None:
        self._book = book
        self._hub = hub
        self.silence = Silence(hub, prefix=_PREFIX, after_s=silent_after_s, state=self._state)
        self._epochs: dict[str, str] = {}
        book.on_quote(self._pushed)

    def now(self, symbol: str) -> Publication | None:
        """Return the newest quote of `symbol` with its current freshness; None if none was pushed."""
        entry = self._book.last(symbol)
        if entry is None:
            return None
        return self.publication(entry.quote, is_pushed=True)

    def publication(
        self, quote: Mapping[str, Any], *, is_pushed: bool = False, is_state: bool = False
    ) -> Publication:
        """Return a pushed or requested `quote` as a publication of its channel with its current freshness."""
        stream = quote.get("stream")
        position = (
            ChannelPosition(stream["epoch"], stream["offset"]) if stream else ChannelPosition(NO_EPOCH, 0)
        )
        data = dict(quote)
        if is_pushed and self.silence.lasts() and quote.get("session") != "closed":
            found = freshness(
                datetime.fromisoformat(quote["as_of"]),
                now=datetime.now(UTC),
                stale_after_s=self.silence.after_s,
                delay_s=float(quote.get("delayed_by_s") or 0),
            )
            data["stale"], data["delayed_by_s"] = found.stale, found.delayed_by_s
        data["state"] = "stale" if data.get("stale") else "live"
        return Publication(_PREFIX + quote["symbol"], position, data, is_state=is_state)

    def refreshed(self, publication: Publication) -> Publication:
        """Return a publication that has waited, with its current freshness."""
        if not publication.channel.startswith(_PREFIX) or not self.silence.lasts():
            return publication
        entry = self._book.last(publication.data["symbol"])
        if entry is None or publication.data["state"] != "live":
            return publication
        return self.publication(entry.quote, is_pushed=True)

    def _state(self, symbol: str) -> Publication | None:
        entry = self._book.last(symbol)
        return None if entry is None else self.publication(entry.quote, is_pushed=True, is_state=True)

    def _pushed(self, symbol: str, entry: PushedQuote) -> None:
        self.silence.end(entry.received_at)
        epoch = entry.quote["stream"]["epoch"]
        last, self._epochs[symbol] = self._epochs.get(symbol, epoch), epoch
        channel = _PREFIX + symbol
        if not self._hub.has_listeners(channel):
            return
        state = "live" if last == epoch else "restarted"
        position = ChannelPosition(epoch, entry.quote["stream"]["offset"])
        self._hub.publish(Publication(channel, position, {**entry.quote, "state": state}))
