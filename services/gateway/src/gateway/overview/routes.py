"""`/v1/overview`: several answers gathered in parallel; a part that failed is named, the rest arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import orjson
from quart import Response, request

from chassis import logging
from chassis.broker.rpc import RpcClient
from chassis.errors import ServiceError
from contracts.batches import CountBatches
from contracts.emails import CountEmails
from contracts.message import Request
from contracts.scopes import Scope
from gateway.http.endpoint import Api, answer
from gateway.http.principal import Principal
from gateway.stocks.service import StockService, symbols_of

log = logging.get(__name__)


def register(api: Api, stocks: StockService, rpc: RpcClient) -> None:
    """Serve the route."""

    @api.route("/v1/overview", scope=None)
    async def overview(principal: Principal) -> Response:
        deadline = api.deadline()
        parts: dict[str, Awaitable[Any]] = {}
        symbols = request.args.get("symbols")
        if symbols and principal.may(Scope.QUOTES_READ):
            parts["stocks"] = stocks.quotes(symbols_of(symbols), deadline)

        async def count(question: Request) -> Any:
            return orjson.loads(await rpc.ask(question, deadline))["counts"]

        if principal.may(Scope.BATCHES_READ):
            parts["batches"] = count(CountBatches(owner_id=principal.owner_id))
        if principal.may(Scope.EMAILS_READ):
            parts["emails"] = count(CountEmails(owner_id=principal.owner_id))
        return answer(await _gather(parts))


async def _gather(parts: dict[str, Awaitable[Any]]) -> dict[str, Any]:
    found = await asyncio.gather(*parts.values(), return_exceptions=True)
    document: dict[str, Any] = {}
    errors = []
    for name, part in zip(parts, found, strict=True):
        if isinstance(part, ServiceError):
            errors.append({"part": name, "code": part.code, "detail": part.detail})
        elif isinstance(part, BaseException):
            raise part
        document[name] = None if isinstance(part, ServiceError) else part
    return {**document, "errors": errors}
