"""The catalogue: all instruments of the database with their newest bars, kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stock_data.bars import Listing


class Catalogue:
    """Listings by symbol. Questions about names and newest closes never wait for the database."""

    def __init__(self) -> None:
        self._listings: dict[str, Listing] = {}

    def fill(self, listings: Iterable[Listing]) -> None:
        """Replace everything by `listings`."""
        self._listings = {listing.symbol: listing for listing in listings}

    def find(self, symbol: str) -> Listing | None:
        """The listing of `symbol`, if there is one."""
        return self._listings.get(symbol)

    def __iter__(self) -> Iterator[Listing]:
        return iter(self._listings.values())
