"""Finding instruments by ticker or company name."""

from __future__ import annotations

from collections.abc import Iterable

from stock_data.bars import Listing


def best(listings: Iterable[Listing], q: str, *, limit: int) -> list[Listing]:
    """The listings that match `q`, best first: ticker, ticker's start, name's words, anything inside."""
    wanted = " ".join(q.casefold().split())
    ranked = [(rank, listing) for listing in listings if (rank := _rank(listing, wanted)) is not None]
    ranked.sort(key=lambda found: (found[0], len(found[1].symbol), found[1].symbol))
    return [listing for _, listing in ranked[:limit]]


def _rank(listing: Listing, wanted: str) -> int | None:
    symbol, name = listing.symbol.casefold(), listing.name.casefold()
    tests = (
        symbol == wanted,
        name == wanted,
        symbol.startswith(wanted),
        name.startswith(wanted),
        f" {wanted}" in name,
        wanted in symbol or wanted in name,
    )
    return tests.index(True) if wanted and True in tests else None
