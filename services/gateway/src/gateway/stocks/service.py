"""Quotes from the book when fresh, else from stock-data; bars and search always from there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from chassis import metrics
from chassis.broker.coalescing import Coalescer
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import InvalidInput, RemoteFailure
from contracts.message import Failure
from contracts.stocks import GetQuotes
from gateway.stocks.book import Entry, QuoteBook

_SYMBOL = re.compile(r"[A-Za-z0-9.^=-]{1,15}")
_ASK_S = 10.0
_MOST = 200


class StockService:
    """Answers questions about stocks."""

    def __init__(self, book: QuoteBook, rpc: RpcClient) -> None:
        self._book = book
        self._rpc = rpc
        self._misses = Coalescer[bytes]("quote", self._ask, most=_MOST)

    def pushed(self, symbol: str) -> Entry | None:
        """The fresh quote of `symbol`, if the feed has one."""
        return self._book.fresh(symbol)

    async def quote(self, symbol: str, deadline: Deadline) -> bytes:
        """The quote of `symbol` as JSON, asked from stock-data. Raises its `unknown-symbol`."""
        metrics.QUOTES_ANSWERED.labels("request").inc()
        return await self._misses.get(symbol, deadline.remaining_s())

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> dict[str, Any]:
        """Quotes in the order asked for, and an error for each symbol that has none."""
        found: dict[str, Any] = {}
        for symbol in symbols:
            entry = self._book.fresh(symbol)
            if entry is not None:
                found[symbol] = entry.quote
        metrics.QUOTES_ANSWERED.labels("push").inc(len(found))
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
            found[error["symbol"]] = _remote(error)
        missing = Failure(
            code="not-found", status=404, title="Not found", detail="There is no answer for this symbol."
        )
        return {symbol: found.get(symbol) or RemoteFailure(missing) for symbol in symbols}


def symbol_of(text: str) -> str:
    """`text` as a symbol, in upper case. Raises `InvalidInput`."""
    if not _SYMBOL.fullmatch(text):
        raise InvalidInput("A symbol has 1 to 15 letters, digits or one of . ^ = -")
    return text.upper()


def symbols_of(text: str) -> list[str]:
    """A comma-separated list of up to 200 symbols, each once."""
    symbols = list(dict.fromkeys(symbol_of(part.strip()) for part in text.split(",") if part.strip()))
    if not 1 <= len(symbols) <= _MOST:
        raise InvalidInput(f"symbols names 1 to {_MOST} symbols, separated by commas.")
    return symbols


def _remote(error: Mapping[str, Any]) -> RemoteFailure:
    title = error["code"].replace("-", " ").capitalize()
    return RemoteFailure(
        Failure(code=error["code"], status=error["status"], title=title, detail=error["detail"])
    )
