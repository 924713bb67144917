"""The book of pushed quotes: the last value of each symbol, already serialized as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from contracts.stocks import is_later
from gateway.http.replies import HttpReply

_MOST_SYMBOLS = 20_000


@dataclass(frozen=True, slots=True)
class PushedQuote:
    """A pushed quote, its time of arrival (monotonic clock, seconds), and its answer, which is built once."""

    quote: Mapping[str, Any]
    received_at: float
    reply: HttpReply


class QuoteBook:
    """Stores the newest quote of each symbol, and passes each new one to listeners."""

    def __init__(self, *, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._entries: dict[str, PushedQuote] = {}
        self._listeners: list[Callable[[str, PushedQuote], None]] = []

    def on_quote(self, listener: Callable[[str, PushedQuote], None]) -> None:
        """Call `listener` with the symbol and its entry after each push."""
        self._listeners.append(listener)

    def push(self, quotes: Sequence[Mapping[str, Any]]) -> None:
        """Handle quotes from the feed; a quote older than the stored one is ignored."""
        now = time.monotonic()
        for quote in quotes:
            symbol = quote["symbol"]
            known = self._entries.get(symbol)
            stream = quote["stream"]
            if known is None:
                is_taken = len(self._entries) < _MOST_SYMBOLS
            else:
                last = known.quote["stream"]
                is_taken = is_later(
                    stream["epoch"], stream["offset"], than_epoch=last["epoch"], than_offset=last["offset"]
                )
            if not is_taken:
                continue
            etag = f'"{stream["epoch"]}-{stream["offset"]}"'
            entry = PushedQuote(
                quote, now, HttpReply(orjson.dumps(quote, option=orjson.OPT_APPEND_NEWLINE), etag=etag)
            )
            self._entries[symbol] = entry
            for listener in self._listeners:
                listener(symbol, entry)

    def fresh(self, symbol: str) -> PushedQuote | None:
        """Return the quote of `symbol` if it arrived within the last few seconds."""
        entry = self._entries.get(symbol)
        if entry is None or time.monotonic() - entry.received_at > self._fresh_s:
            return None
        return entry

    def last(self, symbol: str) -> PushedQuote | None:
        """Return the newest quote of `symbol`, however old."""
        return self._entries.get(symbol)
