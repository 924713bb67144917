"""`/v1/admin/parked`: messages that no service could handle, and what is to become of them."""

from __future__ import annotations

import asyncio
from typing import Any

from chassis import logging
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, ServiceError
from chassis.parked import Parked
from contracts.parked import (
    DiscardParked,
    InspectParked,
    ListParked,
    ParkedDecided,
    ParkedDetail,
    ParkedPage,
    ReplayParked,
)
from contracts.topology import GATEWAY, SERVICES
from gateway.administration.inputs import ChoiceInput, ParkedQuery, ReplayInput
from gateway.audit.inputs import Action
from gateway.audit.trail import AuditTrail
from gateway.http.calls import Call
from gateway.http.principal import Principal

log = logging.get(__name__)


class ParkedService:
    """Asks each service for its own parked messages; the gateway's are at hand."""

    def __init__(self, own: Parked, rpc: RpcClient, audit: AuditTrail) -> None:
        self._own = own
        self._rpc = rpc
        self._audit = audit

    async def list(self, call: Call, query: ParkedQuery) -> dict[str, Any]:
        """Return a page of one service's messages, or the first of every service."""
        if query.service is None:
            return await self.everywhere(query.request(), call.deadline)
        page = await self.page(query.service, query.request(), call.deadline)
        following = None if page.next_after is None else str(page.next_after)
        return {"data": _rows(query.service, page), "next_cursor": following}

    async def get(self, call: Call, service: str, number: int) -> dict[str, Any]:
        """Return one message whole."""
        if service not in SERVICES or number >= 2**63:
            raise NotFound(f"There is no parked message {service}/{number}.")
        detail = await self.inspect(service, InspectParked(id=number), call.deadline)
        document = detail.model_dump(mode="json")
        return {"service": service, **document.pop("message"), **document}

    async def send_again(self, call: Call, body: ReplayInput) -> dict[str, int]:
        """Send messages to their original queue again."""
        request = ReplayParked(wanted=body.wanted(), rate_per_s=body.rate_per_s, actor=_actor(call.principal))
        decided = await self.replay(body.service, request, call.deadline)
        await self._record(call, Action.PARKED_REPLAYED, body, decided)
        return {"replayed": decided.count, "skipped": decided.skipped}

    async def give_up(self, call: Call, body: ChoiceInput) -> dict[str, int]:
        """Give messages up for good."""
        request = DiscardParked(wanted=body.wanted(), actor=_actor(call.principal))
        decided = await self.discard(body.service, request, call.deadline)
        await self._record(call, Action.PARKED_DISCARDED, body, decided)
        return {"discarded": decided.count}

    async def page(self, service: str, request: ListParked, deadline: Deadline) -> ParkedPage:
        """A page of one service's messages."""
        if service == GATEWAY:
            return await self._own.page(request, deadline)
        return await self._rpc.call(request, ParkedPage, deadline, service=service)

    async def inspect(self, service: str, request: InspectParked, deadline: Deadline) -> ParkedDetail:
        """One message whole."""
        if service == GATEWAY:
            return await self._own.inspect(request, deadline)
        return await self._rpc.call(request, ParkedDetail, deadline, service=service)

    async def replay(self, service: str, request: ReplayParked, deadline: Deadline) -> ParkedDecided:
        """Send messages again."""
        if service == GATEWAY:
            return await self._own.replay(request, deadline)
        return await self._rpc.call(request, ParkedDecided, deadline, service=service)

    async def discard(self, service: str, request: DiscardParked, deadline: Deadline) -> ParkedDecided:
        """Give messages up."""
        if service == GATEWAY:
            return await self._own.discard(request, deadline)
        return await self._rpc.call(request, ParkedDecided, deadline, service=service)

    async def everywhere(self, request: ListParked, deadline: Deadline) -> dict[str, Any]:
        """The first messages of every service; a service that does not answer is named."""
        pages = await asyncio.gather(
            *(self.page(service, request, deadline) for service in SERVICES), return_exceptions=True
        )
        data: list[dict[str, Any]] = []
        errors = []
        for service, page in zip(SERVICES, pages, strict=True):
            if isinstance(page, ServiceError):
                errors.append({"service": service, "code": page.code, "detail": page.detail})
            elif isinstance(page, BaseException):
                raise page
            else:
                data += _rows(service, page)
        return {"data": data, "next_cursor": None, "errors": errors}

    async def _record(self, call: Call, action: Action, body: ChoiceInput, decided: ParkedDecided) -> None:
        # The service has decided in a transaction of its own, and keeps the actor of each message, too.
        after = {"wanted": body.wanted().model_dump(mode="json"), "count": decided.count}
        await self._audit.record(
            call.connection, call.principal, action, f"parked:{body.service}", after=after
        )


def _actor(principal: Principal) -> str:
    return f"{principal.user_name} (user {principal.user_id}, key {principal.key_id})"


def _rows(service: str, page: ParkedPage) -> list[dict[str, Any]]:
    return [{"service": service, **message.model_dump(mode="json")} for message in page.data]
