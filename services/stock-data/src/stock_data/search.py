"""Search of instruments by ticker or company name."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from stock_data.history.bars import Listing


def best(listings: Iterable[Listing], q: str, *, limit: int) -> list[Listing]:
    """Return the listings that match `q`, best first.

    The ranks are: the ticker, the name, the start of the ticker, the start of the name, the start of a word
    of the name, a part of either.
    """
    wanted = " ".join(q.casefold().split())
    if not wanted:
        return []
    ranked: list[tuple[int, int, str, Listing]] = []
    for listing in listings:
        symbol, name = listing.symbol.casefold(), listing.name.casefold()
        matches = (
            symbol == wanted,
            name == wanted,
            symbol.startswith(wanted),
            name.startswith(wanted),
            f" {wanted}" in name,
            wanted in symbol or wanted in name,
        )
        if True in matches:
            ranked.append((matches.index(True), len(symbol), listing.symbol, listing))
    return [found[-1] for found in heapq.nsmallest(limit, ranked, key=lambda found: found[:-1])]
