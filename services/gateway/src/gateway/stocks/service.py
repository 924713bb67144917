"""Quotes from the book if fresh, else from stock-data; bars and search always from stock-data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import orjson

from chassis import metrics, shares, threads
from chassis.broker.coalescing import Coalescer
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotBegun, RemoteFailure, ServiceError
from contracts.message import Failure
from contracts.scopes import Scope
from contracts.stocks import GetBars, GetQuotes, SearchSymbols, Symbol, freshness
from gateway.http.byte_room import MOST_FOR_ROOM_S, ByteRoom
from gateway.http.calls import Call
from gateway.http.replies import JSON, HttpReply, document, entity_tag
from gateway.http.shared_bytes import SharedBytes
from gateway.stocks import tables
from gateway.stocks.book import QuoteBook
from gateway.stocks.inputs import MOST_SYMBOLS, BarsQuery, QuotesQuery, SearchQuery

_ASK_S = 10.0
# 10,000 bars, of 800 KB, take 35 ms as CSV, in which nothing else would be answered.
SHORT_BYTES = 64 * 1024
_PUSHED = metrics.QUOTES_ANSWERED.labels("push")


class StockService:
    """Serves quotes, bars and search.

    Beyond their part, tables of bars take of the bytes that are `shared` with other requests.
    """

    def __init__(self, book: QuoteBook, rpc: RpcClient, *, shared: SharedBytes | None = None) -> None:
        self._book = book
        self._rpc = rpc
        # Requests are combined per owner, so that no owner uses another's share of stock-data.
        self._misses: WeakValueDictionary[str, Coalescer[bytes]] = WeakValueDictionary()
        self._tables = ByteRoom(
            "tables of bars",
            most=tables.MOST_BYTES,
            of_owner=tables.MOST_BYTES_OF_OWNER,
            part=tables.PART_BYTES,
            shared=shared,
        )

    async def get(self, call: Call, symbol: Symbol) -> HttpReply:
        """Return the quote of one symbol: the pushed one if fresh, else stock-data's.

        While stock-data cannot answer, or has no more answers for this caller, the last quote that was pushed
        is returned, marked as stale.
        """
        call.principal.require(Scope.QUOTES_READ)
        entry = self._book.fresh(symbol)
        if entry is not None:
            _PUSHED.inc()
            return entry.reply
        try:
            asked = await self.ask(symbol, call.deadline) + b"\n"
            return HttpReply(asked, etag=entity_tag(asked))
        except ServiceError as error:
            known = self._book.last(symbol)
            is_silent = isinstance(error, NotBegun) or error.status in (503, 504)
            if known is None or not (is_silent or error.code == "provider-share"):
                raise
            metrics.QUOTES_ANSWERED.labels("last known").inc()
            as_of = datetime.fromisoformat(known.quote["as_of"])
            # However recent it is: a newer one may exist, which cannot be known now.
            found = freshness(as_of, now=datetime.now(UTC), stale_after_s=-1)
            shown = {**known.quote, "stale": found.stale, "delayed_by_s": found.delayed_by_s}
            body = document(shown)
            return HttpReply(body, etag=entity_tag(body))

    async def list(self, call: Call, query: QuotesQuery) -> dict[str, Any]:
        """Return quotes in the requested order, and an error for each symbol without one."""
        call.principal.require(Scope.QUOTES_READ)
        return await self.quotes(query.symbols, call.deadline)

    async def bars(self, call: Call, symbol: Symbol, query: BarsQuery) -> HttpReply:
        """Return a page of bars in the media type that the caller prefers."""
        question = GetBars(symbol=symbol, **query.model_dump(exclude={"format"}))
        if call.media_type == JSON:
            return tables.reply(JSON, await self._rpc.ask(question, call.deadline))
        size = query.limit * tables.BYTES_OF_A_BAR
        within_s = min(call.deadline.remaining_s(), MOST_FOR_ROOM_S)
        # Before the page is requested: any number of them could wait in memory for a thread.
        async with self._tables.hold(call.principal.owner_id, size, within_s=within_s):
            page = await self._rpc.ask(question, call.deadline)
            write = partial(tables.reply, call.media_type, page)
            if len(page) <= SHORT_BYTES:
                return write()
            return await threads.run(write, until=call.deadline)

    async def search(self, call: Call, query: SearchQuery) -> bytes:
        """Return the symbols whose ticker or company name matches."""
        return await self._rpc.ask(SearchSymbols(q=query.q, limit=query.limit), call.deadline)

    async def ask(self, symbol: str, deadline: Deadline) -> bytes:
        """Request the quote of `symbol` from stock-data, and return it as JSON.

        Raise its `unknown-symbol`.
        """
        metrics.QUOTES_ANSWERED.labels("request").inc()
        share = shares.current.get()
        misses = self._misses.get(share)
        if misses is None:
            misses = self._misses[share] = Coalescer[bytes]("quote", self._ask, most=MOST_SYMBOLS)
        return await misses.get(symbol, deadline.remaining_s())

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> dict[str, Any]:
        """Return the quotes of `symbols`; pushed ones need no request."""
        found: dict[str, Any] = {}
        for symbol in symbols:
            entry = self._book.fresh(symbol)
            if entry is not None:
                found[symbol] = entry.quote
        _PUSHED.inc(len(found))
        missing = [symbol for symbol in symbols if symbol not in found]
        errors: list[Any] = []
        if missing:
            metrics.QUOTES_ANSWERED.labels("request").inc(len(missing))
            reply = orjson.loads(await self._rpc.ask(GetQuotes(symbols=missing), deadline))
            found |= {quote["symbol"]: quote for quote in reply["quotes"]}
            errors = [
                {"symbol": e["symbol"], "code": e["code"], "detail": e["detail"]} for e in reply["errors"]
            ]
        return {"quotes": [found[symbol] for symbol in symbols if symbol in found], "errors": errors}

    async def _ask(self, symbols: Sequence[str]) -> Mapping[str, bytes | Exception]:
        reply = orjson.loads(await self._rpc.ask(GetQuotes(symbols=list(symbols)), Deadline.after(_ASK_S)))
        found: dict[str, bytes | Exception] = {
            quote["symbol"]: orjson.dumps(quote) for quote in reply["quotes"]
        }
        for error in reply["errors"]:
            title = error["code"].replace("-", " ").capitalize()
            known = {name: error.get(name) for name in ("code", "status", "detail", "retry_after_s")}
            found[error["symbol"]] = RemoteFailure(Failure(title=title, **known))
        missing = Failure(
            code="not-found",
            status=404,
            title="Not found",
            detail="No provider returned a quote for this symbol.",
        )
        return {symbol: found.get(symbol) or RemoteFailure(missing) for symbol in symbols}
