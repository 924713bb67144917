"""The instruments of the database with their newest bars, kept in memory and found by symbol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from contracts.stocks import Instrument
from stock_data.history.bars import Listing

_MOST_SUGGESTIONS = 3


class InstrumentIndex:
    """Listings in the order of their symbols, in memory, so that names and closes need no query."""

    def __init__(self) -> None:
        self._listings: dict[str, Listing] = {}
        self._by_spelling: dict[str, list[str]] = {}

    def fill(self, listings: Iterable[Listing]) -> None:
        """Replace all listings with `listings`."""
        self._listings = {each.symbol: each for each in sorted(listings, key=lambda each: each.symbol)}
        by_spelling: defaultdict[str, list[str]] = defaultdict(list)
        for symbol in self._listings:
            for spelling in _spellings(symbol):
                by_spelling[spelling].append(symbol)
        self._by_spelling = dict(by_spelling)

    def find(self, symbol: str) -> Listing | None:
        """Return the listing of `symbol`, if there is one."""
        return self._listings.get(symbol)

    def similar(self, symbol: str) -> list[str]:
        """Return up to three known symbols that differ from `symbol` by one letter or by two swapped letters.

        The cost does not grow with the number of instruments: a request may ask for many unknown symbols.
        """
        found = {each for text in _spellings(symbol) for each in self._by_spelling.get(text, ())}
        return sorted(found - {symbol})[:_MOST_SUGGESTIONS]

    def __iter__(self) -> Iterator[Listing]:
        return iter(self._listings.values())


def describe(listing: Listing) -> Instrument:
    """Return `listing` as the contract describes it."""
    return Instrument(
        symbol=listing.symbol,
        name=listing.name,
        exchange=listing.exchange,
        currency=listing.currency,
        first_bar=listing.first_day,
        last_bar=listing.newest.day,
    )


def _spellings(symbol: str) -> set[str]:
    """Return `symbol` and all its forms without one letter: similar symbols share one of these."""
    return {symbol, *(symbol[:at] + symbol[at + 1 :] for at in range(len(symbol)))} - {""}
