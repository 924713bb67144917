"""`/v1/admin/parked`: messages that no service could handle, and the decisions about them."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from chassis.parked import Parked
from contracts.message import Request
from contracts.parked import (
    CountParked,
    DiscardParked,
    InspectParked,
    ParkedCount,
    ParkedDecided,
    ParkedDetail,
    ParkedPage,
    ReplayParked,
)
from contracts.topology import GATEWAY, SERVICES
from gateway.administration.inputs import DiscardQuery, ParkedQuery, ReplayQuery
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.http.calls import Call
from gateway.http.filters import BulkResult
from gateway.http.parts import gather
from gateway.http.principal import Principal

R = TypeVar("R", bound=BaseModel)

# The most messages that one call decides about.
_MOST = 10_000


class ParkedService:
    """Asks each service for its parked messages; the gateway reads its own directly."""

    def __init__(self, own: Parked, rpc: RpcClient, audit: AuditTrail) -> None:
        self._own = own
        self._rpc = rpc
        self._audit = audit

    async def list(self, call: Call, query: ParkedQuery) -> dict[str, Any]:
        """Return a page of one service's messages, or the first page of every service.

        A service that does not answer is listed in `errors`, unless it is the only one that was asked.
        """
        request = query.request()
        if query.service is not None:
            page = await self._ask(query.service, request, ParkedPage, call.deadline)
            following = None if page.next_after is None else str(page.next_after)
            return {"data": _rows(query.service, page), "next_cursor": following}
        pages, failed = await gather(
            {service: self._ask(service, request, ParkedPage, call.deadline) for service in SERVICES}
        )
        errors = [
            {"service": service, "code": error.code, "detail": error.detail}
            for service, error in failed.items()
        ]
        data = [row for service, page in pages.items() for row in _rows(service, page)]
        return {"data": data, "next_cursor": None, "errors": errors}

    async def get(self, call: Call, service: str, number: int) -> dict[str, Any]:
        """Return one complete message."""
        if service not in SERVICES or number >= 2**63:
            raise NotFound(f"There is no parked message {service}/{number}.")
        detail = await self._ask(service, InspectParked(id=number), ParkedDetail, call.deadline)
        document = detail.model_dump(mode="json")
        return {"service": service, **document.pop("message"), **document}

    async def replay(self, call: Call, query: ReplayQuery) -> BulkResult:
        """Send the oldest matching messages to their original queues; those without a valid id stay."""
        if query.dry_run:
            found = await self._count(query, call.deadline)
            return _would_change(found.matching, found.replayable)
        request = ReplayParked(
            wanted=query.wanted(), most=_MOST, rate_per_s=query.rate_per_s, actor=_actor(call.principal)
        )
        decided = await self._ask(query.service, request, ParkedDecided, call.deadline)
        return self._changed(call, Action.PARKED_REPLAYED, query, decided)

    async def discard(self, call: Call, query: DiscardQuery) -> BulkResult:
        """Discard the oldest matching messages; they are never handled."""
        if query.dry_run:
            found = await self._count(query, call.deadline)
            return _would_change(found.matching, found.matching)
        request = DiscardParked(wanted=query.wanted(), most=_MOST, actor=_actor(call.principal))
        decided = await self._ask(query.service, request, ParkedDecided, call.deadline)
        return self._changed(call, Action.PARKED_DISCARDED, query, decided)

    async def _count(self, query: ReplayQuery | DiscardQuery, deadline: Deadline) -> ParkedCount:
        return await self._ask(query.service, CountParked(wanted=query.wanted()), ParkedCount, deadline)

    def _changed(
        self, call: Call, action: Action, query: ReplayQuery | DiscardQuery, decided: ParkedDecided
    ) -> BulkResult:
        """Record a decision and return it as the answer of a bulk action."""
        # The service has committed the decision already, and also stores the actor with each message.
        after = {"wanted": query.wanted().model_dump(mode="json"), "count": decided.count}
        self._audit.record_with(call, action, f"parked:{query.service}", after=after)
        return BulkResult(
            matched=decided.count + decided.skipped + decided.remaining,
            changed=decided.count,
            dry_run=False,
            complete=decided.remaining == 0,
        )

    async def _ask(self, service: str, request: Request, reply: type[R], deadline: Deadline) -> R:
        """Ask a service about its parked messages; for the gateway's own no message is sent."""
        if service != GATEWAY:
            return await self._rpc.call(request, reply, deadline, service=service)
        answer = await self._own.answers()[type(request)](request, deadline)
        assert isinstance(answer, reply)
        return answer


def _actor(principal: Principal) -> str:
    return f"{principal.user_name} (user {principal.user_id}, key {principal.key_id})"


def _would_change(matched: int, changeable: int) -> BulkResult:
    return BulkResult(
        matched=matched, changed=min(changeable, _MOST), dry_run=True, complete=changeable <= _MOST
    )


def _rows(service: str, page: ParkedPage) -> list[dict[str, Any]]:
    return [{"service": service, **message.model_dump(mode="json")} for message in page.data]
