"""`/v1/stocks`: quotes, bars and search."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from quart import Response, request

from chassis import metrics
from chassis.broker.rpc import RpcClient
from contracts.stocks import Adjustment, Day, GetBars, SearchSymbols, Timeframe
from gateway.http.endpoint import JSON, Api, accepted_type, answer, invalid, is_known, read_query
from gateway.http.principal import Principal
from gateway.stocks.book import Entry
from gateway.stocks.service import StockService, symbol_of, symbols_of

CSV = "text/csv"
NDJSON = "application/x-ndjson"
_FORMATS = {"json": JSON, "csv": CSV, "ndjson": NDJSON}
_COLUMNS = ("t", "o", "h", "l", "c", "v", "factor")

_PUSHED = metrics.QUOTES_ANSWERED.labels("push")
_BRIEFLY = "private, max-age=1"


class BarsQuery(BaseModel):
    """The query of `GET /v1/stocks/{symbol}/bars`."""

    model_config = ConfigDict(extra="forbid")
    timeframe: Timeframe = "1d"
    start: Day | None = None
    end: Day | None = None
    adjustment: Adjustment = "raw"
    limit: int = Field(default=1000, ge=1, le=10_000)
    cursor: str | None = Field(default=None, max_length=500)
    format: Literal["json", "csv", "ndjson"] | None = None

    @model_validator(mode="after")
    def _start_is_first(self) -> BarsQuery:
        if self.start and self.end and self.end < self.start:
            raise ValueError("end must not be before start")
        return self


class SearchQuery(BaseModel):
    """The query of `GET /v1/stocks/search`."""

    model_config = ConfigDict(extra="forbid")
    q: str = Field(min_length=1, max_length=100)
    limit: int = Field(default=20, ge=1, le=100)


def register(api: Api, service: StockService, rpc: RpcClient) -> None:
    """Serve the routes."""

    @api.route("/v1/stocks/<symbol>", scope="quotes:read")
    async def get_quote(_: Principal, symbol: str) -> Response:
        return await quote_answer(api, service, symbol)

    @api.route("/v1/stocks", scope="quotes:read")
    async def get_quotes(_: Principal) -> Response:
        asked = request.args.get("symbols", "")
        if not asked:
            raise invalid("/symbols", "Name the symbols: ?symbols=AAPL,MSFT")
        return answer(
            await service.quotes(symbols_of(asked), api.deadline()), headers={"cache-control": _BRIEFLY}
        )

    @api.route("/v1/stocks/<symbol>/bars", scope="quotes:read")
    async def get_bars(_: Principal, symbol: str) -> Response:
        query = read_query(BarsQuery)
        wanted = _FORMATS[query.format] if query.format else accepted_type(JSON, CSV, NDJSON)
        question = GetBars(symbol=symbol_of(symbol), **query.model_dump(exclude={"format"}))
        return _bars_answer(wanted, await rpc.ask(question, api.deadline()))

    @api.route("/v1/stocks/search", scope="quotes:read")
    async def search(_: Principal) -> Response:
        query = read_query(SearchQuery)
        return answer(await rpc.ask(SearchSymbols(q=query.q, limit=query.limit), api.deadline()))


async def quote_answer(api: Api, service: StockService, symbol: str) -> Response:
    """The quote of one symbol: pushed when fresh, with an entity tag; else asked for."""
    # The pushed quotes are under their upper-case symbols: a hit needs no check of the text.
    entry = service.pushed(symbol) or service.pushed(symbol_of(symbol))
    if entry is None:
        return answer(
            await service.quote(symbol_of(symbol), api.deadline()), headers={"cache-control": _BRIEFLY}
        )
    _PUSHED.inc()
    return _pushed_answer(entry)


def _pushed_answer(entry: Entry) -> Response:
    if is_known(entry.etag):
        return Response(b"", 304, headers={"cache-control": _BRIEFLY, "etag": entry.etag})
    return Response(entry.body, 200, headers=entry.headers)


def _bars_answer(media_type: str, body: bytes) -> Response:
    tag = hashlib.blake2b(media_type.encode() + body, digest_size=12).hexdigest()
    headers = {"cache-control": "private, max-age=60", "etag": f'"{tag}"', "vary": "accept"}
    response = Response(b"", 304) if is_known(headers["etag"]) else _as(media_type, body)
    response.headers.update(headers)
    return response


def _as(media_type: str, body: bytes) -> Response:
    if media_type == JSON:
        return answer(body)
    page = orjson.loads(body)
    headers = {"x-next-cursor": page["next_cursor"]} if page["next_cursor"] else {}
    if media_type == NDJSON:
        lines = b"".join(orjson.dumps(bar) + b"\n" for bar in page["data"])
        return Response(lines, headers=headers, content_type=NDJSON)
    return Response(_csv(page["data"]), headers=headers, content_type="text/csv; charset=utf-8")


def _csv(bars: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows([bar.get(column) for column in _COLUMNS] for bar in bars)
    return text.getvalue().encode()
