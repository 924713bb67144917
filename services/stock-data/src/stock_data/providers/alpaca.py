"""Alpaca's market data (https://data.alpaca.markets) as a provider."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial

from chassis import threads
from chassis.deadlines import Deadline
from contracts.stocks import Bar, Coverage, Instrument, Quote
from stock_data import sessions
from stock_data.errors import BadData, NotOffered, ProviderFailure, Undecided, UnknownSymbol
from stock_data.providers import alpaca_payloads, payloads
from stock_data.providers.alpaca_payloads import AlpacaBar
from stock_data.providers.alpaca_quotes import SOURCE, LastTrade
from stock_data.providers.alpaca_splits import AlpacaSplits
from stock_data.providers.payloads import Malformed
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes
from stock_data.providers.transport import RequestRejected, Transport

_MOST_PAGES = 100
# Limit of an answer for each requested symbol; Alpaca's snapshots take 0.6 KiB each.
_SNAPSHOT_BYTES = 8 * 1024
# Alpaca has no earlier bars. A start is always sent, because without one Alpaca starts today.
_FIRST_DAY = date(2016, 1, 1)
# No Alpaca symbol contains these; elsewhere they mark indices, currencies and classes of shares.
_FOREIGN_SIGNS = frozenset("^=-")
# Enough to find one invalid symbol among 200 by halves.
MOST_CALLS = 20
# Without a trade it is the close of today's session, which may be hours ahead; and clocks differ.
_MOST_AHEAD = timedelta(days=1)
_UNDECIDED = "Alpaca rejects other symbols of the same request; repeat the request."
_INVALID_SYMBOL = "invalid symbol"
_DELAYS_S = {"delayed_sip": 900.0}


class AlpacaProvider:
    """Snapshots as quotes and daily bars, in the adjustments that Alpaca itself offers."""

    name = SOURCE

    def __init__(self, *, base_url: str, key_id: str, secret: str, feed: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._feed = feed
        self._delay_s = _DELAYS_S.get(feed, 0.0)
        self._transport = Transport(
            SOURCE,
            base_url,
            headers={"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret},
            timeout_s=timeout_s,
        )
        self._splits = AlpacaSplits(self._transport)
        self.budget = self._transport.budget

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return the snapshots of `symbols`; a bad or rejected one does not affect the others.

        Alpaca rejects a whole request for one invalid symbol: it is made again without the one that the
        answer names, or in halves, within half of the time. The number of calls is bounded, because they
        count towards the quota of all callers. What was not asked for then is `Undecided`.
        """
        given_s = deadline.remaining_s()
        quotes: dict[str, Quote] = {}
        errors: dict[str, ProviderFailure] = {}
        rejected: list[str] = []
        parts = [[symbol for symbol in symbols if not _FOREIGN_SIGNS & set(symbol)]]
        for number in range(MOST_CALLS):
            if not any(parts) or (number and deadline.remaining_s() < given_s / 2):
                break
            part = parts.pop()
            try:
                found = await self._snapshots(part, deadline) if part else FoundQuotes()
            except RequestRejected as error:
                if _INVALID_SYMBOL not in error.detail:
                    raise
                named = part[0] if len(part) == 1 else error.detail.rpartition(" ")[-1]
                if named in part:
                    rejected.append(named)
                    parts.append([symbol for symbol in part if symbol != named])
                else:
                    parts += part[len(part) // 2 :], part[: len(part) // 2]
                continue
            quotes |= found.quotes
            errors |= found.errors
        errors |= {symbol: Undecided(_UNDECIDED) for part in parts for symbol in part}
        return FoundQuotes(quotes, errors, rejected)

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        """Return a page of bars, assembled from Alpaca's own pages."""
        if query.end < _FIRST_DAY:
            # Alpaca knows today's symbols only: the next provider decides whether this one was traded then.
            return BarsPage([], has_more=False, as_of=datetime.now(UTC), coverage=Coverage(first=_FIRST_DAY))
        if _FOREIGN_SIGNS & set(query.symbol):
            raise UnknownSymbol(query.symbol)
        try:
            found, has_more = await self._collect(query, deadline)
            if not found:
                # An unknown symbol and a range without a trading day look the same in the list of bars.
                known = await self.quotes([query.symbol], deadline)
                if query.symbol not in known.quotes and query.symbol not in known.errors:
                    raise UnknownSymbol(query.symbol)
        except RequestRejected as error:
            if _INVALID_SYMBOL in error.detail:
                raise UnknownSymbol(query.symbol) from error
            raise
        # In a thread: converting thousands of bars would block the event loop for too long.
        data, repeated = await threads.run(partial(_days, found, query))
        return BarsPage(data=data, has_more=has_more, as_of=datetime.now(UTC), repeated=repeated)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:  # noqa: ARG002
        """Raise `NotOffered`: keys for market data cannot list assets, so the next provider is asked."""
        raise NotOffered("Alpaca's market data has no search.")

    async def _snapshots(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        query = {"symbols": ",".join(symbols), "feed": self._feed}
        most_bytes = _SNAPSHOT_BYTES * (len(symbols) + 1)
        body = await self._transport.get("/v2/stocks/snapshots", query, deadline, most_bytes=most_bytes)
        snapshots = await payloads.read(alpaca_payloads.SNAPSHOTS, body)
        strangers = snapshots.keys() - set(symbols)
        now = datetime.now(UTC)
        trades: dict[str, LastTrade] = {}
        errors: dict[str, BadData] = {}
        for symbol in symbols:
            snapshot = snapshots.get(symbol)
            if isinstance(snapshot, Malformed):
                errors[symbol] = BadData(snapshot.reason)
            elif symbol not in snapshots and strangers:
                errors[symbol] = BadData(f"Alpaca answers with {min(strangers)[:20]!r} instead of {symbol}.")
            elif snapshot is not None and (trade := LastTrade.of(snapshot)):
                if trade.at > now + _MOST_AHEAD:
                    errors[symbol] = BadData(f"The last trade of {symbol} is in the future: {trade.at}.")
                else:
                    trades[symbol] = trade
        days = {symbol: trade.day for symbol, trade in trades.items()}
        splits = await self._splits.between_sessions(days, deadline)
        now = datetime.now(UTC)
        return FoundQuotes(
            {s: each.quote(s, splits.get(s), delay_s=self._delay_s, now=now) for s, each in trades.items()},
            errors,
        )

    async def _collect(self, query: DailyBarsQuery, deadline: Deadline) -> tuple[list[AlpacaBar], bool]:
        """Return up to `query.limit` bars, and whether there are more."""
        found: list[AlpacaBar] = []
        if query.start > sessions.day_of(datetime.now(UTC)):
            # Alpaca rejects a start after its own end, which is now.
            return found, False
        parameters = {
            "timeframe": "1Day",
            "adjustment": query.adjustment,
            "feed": self._feed,
            "start": max(query.start, _FIRST_DAY).isoformat(),
            **({"end": query.end.isoformat()} if query.end < date.max else {}),
        }
        for _ in range(_MOST_PAGES):
            parameters["limit"] = str(min(query.limit - len(found), alpaca_payloads.MOST_BARS))
            body = await self._transport.get(f"/v2/stocks/{query.symbol}/bars", parameters, deadline)
            page = await payloads.read(alpaca_payloads.BARS, body)
            if page.symbol != query.symbol:
                raise BadData(f"Alpaca answers with bars of {page.symbol[:20]!r} instead of {query.symbol}.")
            if page.next_page_token is not None and page.next_page_token == parameters.get("page_token"):
                break
            found += page.bars or []
            if page.next_page_token is None or len(found) >= query.limit:
                return found[: query.limit], page.next_page_token is not None
            parameters["page_token"] = page.next_page_token
        raise BadData("Alpaca's pages of bars do not end.")


def _days(found: Sequence[AlpacaBar], query: DailyBarsQuery) -> tuple[list[Bar], list[datetime]]:
    """Return the bars as this service represents them, and the days whose prices repeat the day before."""
    days = [sessions.day_of(bar.t) for bar in found]
    if any(later <= earlier for earlier, later in itertools.pairwise(days)):
        raise BadData("Alpaca's bars are not in the order of their days.")
    if days and not query.start <= days[0] <= days[-1] <= query.end:
        raise BadData(f"Alpaca answers with bars from {days[0]} to {days[-1]}, beyond the requested days.")
    data: list[Bar] = []
    repeated: list[datetime] = []
    for before, bar, day in zip((None, *found), found, days, strict=False):
        # Alpaca dates a day from midnight in New York; here a day starts at midnight UTC everywhere.
        at = sessions.midnight(day)
        data.append(Bar(t=at, o=bar.o, h=bar.h, l=bar.l, c=bar.c, v=bar.v))
        if before and (bar.o, bar.h, bar.l, bar.c) == (before.o, before.h, before.l, before.c):
            repeated.append(at)
    return data, repeated
