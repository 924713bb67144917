"""One answer gathered from several services in parallel."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from chassis.broker.rpc import RpcClient
from contracts.batches import BatchCounts, CountBatches
from contracts.scopes import Scope
from gateway.emails.listing import EmailListing
from gateway.http.calls import Call
from gateway.http.parts import gather
from gateway.overview.inputs import OverviewQuery
from gateway.stocks.service import StockService


class OverviewService:
    """Gathers the parts that the caller may see; a part that failed is listed in `errors`."""

    def __init__(self, stocks: StockService, emails: EmailListing, rpc: RpcClient) -> None:
        self._stocks = stocks
        self._emails = emails
        self._rpc = rpc

    async def get(self, call: Call, query: OverviewQuery) -> dict[str, Any]:
        """Return quotes, and the caller's batches and mails by status."""
        principal = call.principal
        parts: dict[str, Awaitable[Any]] = {}
        if query.symbols and principal.may(Scope.QUOTES_READ):
            parts["stocks"] = self._stocks.quotes(query.symbols, call.deadline)
        if principal.may(Scope.BATCHES_READ):
            question = CountBatches(owner_id=principal.owner_id)
            parts["batches"] = self._rpc.call(question, BatchCounts, call.deadline)
        if principal.may(Scope.EMAILS_READ):
            parts["emails"] = self._emails.counts(owner_id=principal.owner_id, deadline=call.deadline)
        came, failed = await gather(parts)
        for name in {"batches", "emails"} & came.keys():
            came |= {name: came[name].counts, f"{name}_exact": came[name].exact}
        errors = [
            {"part": name, "code": error.code, "detail": error.detail} for name, error in failed.items()
        ]
        return {**dict.fromkeys(parts), **came, "errors": errors}
